#include "checkpoint/rank_file.h"

#include <hdf5.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <set>

namespace longspan {
namespace {

constexpr int64_t kSmallestHead = 4096;
// A data set with its four attributes takes more than this: where the search for the block's size
// starts.
constexpr int64_t kLeastBytesASet = 384;
constexpr int64_t kLargestHead = int64_t{1} << 30;

// HDF5 keeps state for the whole process, and not every build of it locks that state.
std::mutex& Hdf5Mutex() {
  static std::mutex mutex;
  return mutex;
}

// Owns an HDF5 identifier.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(other.id_), close_(other.close_) { other.id_ = -1; }
  Handle& operator=(Handle&&) = delete;
  ~Handle() { Close(); }
  hid_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }
  bool Close() {
    const bool closed = id_ < 0 || close_(id_) >= 0;
    id_ = -1;
    return closed;
  }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// HDF5 prints its error stack unless told otherwise; errors are reported by Status instead.
class QuietErrors {
 public:
  QuietErrors() {
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~QuietErrors() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }
  QuietErrors(const QuietErrors&) = delete;
  QuietErrors& operator=(const QuietErrors&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

absl::Status Hdf5Failure(const std::string& what) {
  return absl::InternalError("HDF5 failed to " + what);
}

// A sparse file in memory that HDF5 opens by name.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(memfd_create("longspan-layout", MFD_CLOEXEC)) {}
  ~MemoryFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  bool ok() const { return descriptor_ >= 0; }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  int64_t Size() const { return lseek(descriptor_, 0, SEEK_END); }
  bool Read(std::string& out) const {
    size_t got = 0;
    while (got < out.size()) {
      const ssize_t n = pread(descriptor_, out.data() + got, out.size() - got, got);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      got += n;
    }
    return true;
  }

 private:
  int descriptor_;
};

Handle FileType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return Handle(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
    case DType::kF64:
      return Handle(H5Tcopy(H5T_IEEE_F64LE), H5Tclose);
    case DType::kBF16: {
      // The upper half of an f32: 1 sign bit, 8 exponent bits, 7 bits of mantissa.
      Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
      if (!type.ok() || H5Tset_fields(type.get(), 15, 7, 8, 0, 7) < 0 ||
          H5Tset_size(type.get(), 2) < 0 || H5Tset_ebias(type.get(), 127) < 0) {
        return Handle(-1, H5Tclose);
      }
      return type;
    }
    case DType::kI32:
      return Handle(H5Tcopy(H5T_STD_I32LE), H5Tclose);
    case DType::kI64:
      return Handle(H5Tcopy(H5T_STD_I64LE), H5Tclose);
    case DType::kU8:
      return Handle(H5Tcopy(H5T_STD_U8LE), H5Tclose);
    case DType::kU16:
      return Handle(H5Tcopy(H5T_STD_U16LE), H5Tclose);
    case DType::kU32:
      return Handle(H5Tcopy(H5T_STD_U32LE), H5Tclose);
    case DType::kU64:
      return Handle(H5Tcopy(H5T_STD_U64LE), H5Tclose);
  }
  return Handle(-1, H5Tclose);
}

bool PutIntegers(hid_t object, const char* name, const std::vector<int64_t>& values, bool scalar) {
  const hsize_t count = values.size();
  Handle space(scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &count, nullptr), H5Sclose);
  if (!space.ok()) return false;
  Handle attribute(H5Acreate2(object, name, H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                   H5Aclose);
  if (!attribute.ok()) return false;
  return values.empty() || H5Awrite(attribute.get(), H5T_NATIVE_INT64, values.data()) >= 0;
}

bool PutText(hid_t object, const char* name, const std::string& text) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  if (!type.ok() || !space.ok() || H5Tset_size(type.get(), text.size() + 1) < 0 ||
      H5Tset_cset(type.get(), H5T_CSET_UTF8) < 0) {
    return false;
  }
  Handle attribute(H5Acreate2(object, name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
                   H5Aclose);
  return attribute.ok() && H5Awrite(attribute.get(), type.get(), text.c_str()) >= 0;
}

absl::Status CheckRegion(const StateRegion& region) {
  const std::string name = region.group + "/" + region.tensor;
  if (region.group.size() < 2 || region.group.front() != '/' || region.group.back() == '/' ||
      region.group.find("//") != std::string::npos ||
      region.group.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("checkpoint region '" + name + "': the group '" +
                                      region.group + "' is no path such as /parameters");
  }
  if (region.tensor.empty() || region.tensor == "." ||
      region.tensor.find('/') != std::string::npos ||
      region.tensor.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("checkpoint region '" + name +
                                      "': a tensor's name is not empty and has no '/'");
  }
  if (region.global_shape.size() > 32) {
    return absl::InvalidArgumentError("checkpoint region '" + name + "': more than 32 dimensions");
  }
  int64_t elements = 1;
  for (int64_t dim : region.global_shape) {
    if (dim < 0 || (dim > 0 && elements > std::numeric_limits<int64_t>::max() / 16 / dim)) {
      return absl::InvalidArgumentError("checkpoint region '" + name +
                                        "': a dimension is negative or too large");
    }
    elements *= dim;
  }
  if (region.flat_begin < 0 || region.flat_end < region.flat_begin || region.flat_end > elements) {
    return absl::InvalidArgumentError(
        "checkpoint region '" + name + "': elements [" + std::to_string(region.flat_begin) + ", " +
        std::to_string(region.flat_end) + ") of a tensor that has " + std::to_string(elements));
  }
  if (region.flat_end > region.flat_begin && region.data == nullptr) {
    return absl::InvalidArgumentError("checkpoint region '" + name + "' has no memory");
  }
  return absl::OkStatus();
}

// Writes the structure with a metadata block of `head_bytes` and closes it. Fills offsets.
absl::Status WriteStructure(const std::string& path, const RankFileIdentity& identity,
                            const std::vector<StateRegion>& regions, int64_t head_bytes,
                            std::vector<int64_t>& offsets) {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // Small raw data would otherwise come from blocks of their own, with gaps. HDF5's other
  // drivers look for the real path of a file, which one in memory does not have; stdio's takes the
  // name as it is.
  if (!access.ok() || H5Pset_fapl_stdio(access.get()) < 0 ||
      H5Pset_meta_block_size(access.get(), head_bytes) < 0 ||
      H5Pset_small_data_block_size(access.get(), 0) < 0 ||
      H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG) < 0) {
    return Hdf5Failure("set file access properties");
  }
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
  if (!file.ok()) return Hdf5Failure("create the layout in memory (" + path + ")");
  {
    Handle root(H5Gopen2(file.get(), "/", H5P_DEFAULT), H5Gclose);
    if (!root.ok() || !PutText(root.get(), "format", "longspan-checkpoint") ||
        !PutIntegers(root.get(), "version", {1}, true) ||
        !PutText(root.get(), "run_id", identity.run_id) ||
        !PutIntegers(root.get(), "generation", {identity.generation}, true) ||
        !PutIntegers(root.get(), "rank", {identity.rank}, true) ||
        !PutIntegers(root.get(), "ranks", {identity.ranks}, true)) {
      return Hdf5Failure("write the file's attributes");
    }
  }
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  if (!creation.ok() || !links.ok() || H5Pset_layout(creation.get(), H5D_CONTIGUOUS) < 0 ||
      H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY) < 0 ||
      H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER) < 0 ||
      H5Pset_obj_track_times(creation.get(), false) < 0 ||
      H5Pset_create_intermediate_group(links.get(), 1) < 0 ||
      H5Pset_char_encoding(links.get(), H5T_CSET_UTF8) < 0) {
    return Hdf5Failure("set data set properties");
  }
  offsets.assign(regions.size(), -1);
  for (size_t i = 0; i < regions.size(); ++i) {
    const StateRegion& region = regions[i];
    const hsize_t count = static_cast<hsize_t>(RegionElements(region));
    if (count == 0) continue;
    const std::string name = region.group + "/" + region.tensor;
    Handle type = FileType(region.dtype);
    Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
    if (!type.ok() || !space.ok()) return Hdf5Failure("describe " + name);
    Handle set(H5Dcreate2(file.get(), name.c_str(), type.get(), space.get(), links.get(),
                          creation.get(), H5P_DEFAULT),
               H5Dclose);
    if (!set.ok()) return Hdf5Failure("create the data set " + name);
    if (!PutText(set.get(), "tensor", region.tensor) ||
        !PutIntegers(set.get(), "global_shape", region.global_shape, false) ||
        !PutIntegers(set.get(), "flat_begin", {region.flat_begin}, true) ||
        !PutIntegers(set.get(), "flat_end", {region.flat_end}, true)) {
      return Hdf5Failure("write the attributes of " + name);
    }
    const haddr_t offset = H5Dget_offset(set.get());
    if (offset == HADDR_UNDEF) return Hdf5Failure("place the data set " + name);
    offsets[i] = static_cast<int64_t>(offset);
  }
  if (!file.Close()) return Hdf5Failure("close the layout");
  return absl::OkStatus();
}

// Raw data start at `head_bytes` and leave no gap up to the end of the file.
bool GapFree(const std::vector<StateRegion>& regions, const std::vector<int64_t>& offsets,
             int64_t head_bytes, int64_t file_bytes) {
  int64_t next = head_bytes;
  for (size_t i = 0; i < regions.size(); ++i) {
    if (offsets[i] < 0) continue;
    if (offsets[i] != next) return false;
    next += RegionBytes(regions[i]);
  }
  return next == file_bytes;
}

}  // namespace

int64_t ShapeElements(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (int64_t dim : shape) elements *= dim;
  return elements;
}

int ContentSumCount(const std::vector<StateRegion>& regions) {
  int count = 0;
  for (const StateRegion& region : regions) count = std::max(count, region.content_sum + 1);
  return count;
}

int64_t RegionElements(const StateRegion& region) { return region.flat_end - region.flat_begin; }

int64_t RegionBytes(const StateRegion& region) {
  return RegionElements(region) * SizeOf(region.dtype);
}

absl::StatusOr<RankFileLayout> BuildRankFileLayout(const RankFileIdentity& identity,
                                                   const std::vector<StateRegion>& regions) {
  std::set<std::pair<std::string, std::string>> names;
  int64_t sets = 0;
  for (const StateRegion& region : regions) {
    if (absl::Status status = CheckRegion(region); !status.ok()) return status;
    if (!names.insert({region.group, region.tensor}).second) {
      return absl::InvalidArgumentError("checkpoint region '" + region.group + "/" + region.tensor +
                                        "' is registered twice on rank " +
                                        std::to_string(identity.rank));
    }
    sets += RegionElements(region) > 0;
  }

  const std::lock_guard<std::mutex> lock(Hdf5Mutex());
  const QuietErrors quiet;
  const auto least = static_cast<uint64_t>(std::max(kSmallestHead, sets * kLeastBytesASet));
  for (auto head_bytes = static_cast<int64_t>(std::bit_ceil(least)); head_bytes <= kLargestHead;
       head_bytes *= 2) {
    // Too small a block only shows afterwards, by metadata between or behind the raw data; then the
    // next power of two.
    const MemoryFile memory;
    if (!memory.ok()) {
      return absl::ResourceExhaustedError(std::string("memfd_create: ") + std::strerror(errno));
    }
    RankFileLayout layout;
    if (absl::Status status =
            WriteStructure(memory.path(), identity, regions, head_bytes, layout.offsets);
        !status.ok()) {
      return status;
    }
    layout.bytes = memory.Size();
    // Without raw data HDF5 gives the unused part of the block back: all of the file is metadata.
    layout.data_begin = sets > 0 ? head_bytes : layout.bytes;
    if (!GapFree(regions, layout.offsets, layout.data_begin, layout.bytes)) continue;
    layout.head.resize(static_cast<size_t>(layout.data_begin));
    if (!memory.Read(layout.head)) {
      return absl::InternalError("the HDF5 layout in memory cannot be read back");
    }
    return layout;
  }
  return absl::InternalError("no HDF5 metadata block up to " + std::to_string(kLargestHead) +
                             " bytes holds " + std::to_string(regions.size()) + " regions");
}

}  // namespace longspan
