#include "runtime/data/token_file_writer.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "runtime/data/file_descriptor.h"
#include "runtime/data/hdf5_handle.h"
#include "runtime/data/raw_tokens.h"
#include "runtime/data/token_format.h"

namespace longspan {
namespace {

constexpr int64_t kBufferBytes = 1 << 20;

absl::Status WriteFully(int file, const std::byte* bytes, int64_t size, const std::string& what) {
  int64_t done = 0;
  while (done < size) {
    const ssize_t put = ::write(file, bytes + done, size - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", what));
    done += put;
  }
  return absl::OkStatus();
}

// An unnamed file beside `path`, appended to through a buffer, then read back.
class Spool {
 public:
  absl::Status Open(const std::string& path) {
    path_ = path;
    std::string name = absl::StrCat(path, ".XXXXXX");
    file_ = FileDescriptor(::mkostemp(name.data(), O_CLOEXEC));
    if (!file_.valid()) {
      return absl::ErrnoToStatus(
          errno, absl::StrCat("cannot write ", path, ": no file can be made in its directory"));
    }
    ::unlink(name.c_str());
    return absl::OkStatus();
  }

  // Each value converted to T.
  template <typename T, typename Value>
  absl::Status Append(std::span<const Value> values) {
    const size_t old_size = buffer_.size();
    buffer_.resize(old_size + values.size() * sizeof(T));
    std::byte* out = buffer_.data() + old_size;
    for (const Value value : values) {
      const T narrow = static_cast<T>(value);
      std::memcpy(out, &narrow, sizeof(T));
      out += sizeof(T);
    }
    return static_cast<int64_t>(buffer_.size()) < kBufferBytes ? absl::OkStatus() : Flush();
  }

  absl::Status Flush() {
    const absl::Status status = WriteFully(file_.get(), buffer_.data(), buffer_.size(),
                                           absl::StrCat("the temporary file beside ", path_));
    size_ += static_cast<int64_t>(buffer_.size());
    buffer_.clear();
    return status;
  }

  // Of what was flushed.
  int64_t size() const { return size_; }
  absl::Status Read(int64_t offset, std::span<std::byte> out) const {
    return ReadFully(file_.get(), out.data(), static_cast<int64_t>(out.size()), offset,
                     absl::StrCat("the temporary file beside ", path_));
  }

 private:
  std::string path_;
  FileDescriptor file_;
  std::vector<std::byte> buffer_;
  int64_t size_ = 0;
};

// Removes the file at the end of its life unless it was kept.
class PartialFile {
 public:
  explicit PartialFile(std::string path) : path_(std::move(path)) {}
  ~PartialFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }
  void Keep() { path_.clear(); }

 private:
  std::string path_;
};

absl::Status SyncPath(const std::string& path, int flags) {
  const FileDescriptor file(::open(path.c_str(), flags | O_CLOEXEC));
  if (!file.valid() || ::fsync(file.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot sync ", path));
  }
  return absl::OkStatus();
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

bool WriteAttribute(hid_t file, const char* name, hid_t stored, hid_t memory, const void* value) {
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle attribute(H5Acreate2(file, name, stored, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose);
  return attribute.ok() && H5Awrite(attribute.get(), memory, value) >= 0;
}

bool WriteAttribute(hid_t file, const char* name, int64_t value) {
  return WriteAttribute(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

bool WriteAttribute(hid_t file, const char* name, const std::string& value) {
  const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  if (H5Tset_size(type.get(), value.size() + 1) < 0) return false;
  return WriteAttribute(file, name, type.get(), type.get(), value.c_str());
}

// A contiguous 1-D data set, with its place in the file fixed at once and no filling.
Hdf5Handle CreateDataset(hid_t file, const char* name, hid_t type, hsize_t count) {
  const Hdf5Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  const Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_layout(creation.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(creation.get(), false);  // the same input gives the same bytes
  return Hdf5Handle(
      H5Dcreate2(file, name, type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
      H5Dclose);
}

class Writer final : public TokenFileWriter {
 public:
  explicit Writer(std::string path) : path_(std::move(path)) {}

  absl::Status Initialize() {
    struct stat status;
    if (::stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot write ", path_, ": it exists and is not a file; name another"));
    }
    absl::Status result = tokens_spool_.Open(path_);
    if (result.ok()) result = offsets_spool_.Open(path_);
    if (result.ok()) result = AppendOffset(0);
    return result;
  }

  void SetTokenizer(const std::string& kind, int64_t vocabulary, int32_t end_of_sequence,
                    const std::string& serialized) override {
    LONGSPAN_CHECK(tokens_ == 0, "the tokenizer decides how tokens are stored, so it comes first");
    LONGSPAN_CHECK(vocabulary > 0, "a data set that is written has a vocabulary");
    kind_ = kind;
    vocabulary_ = vocabulary;
    end_of_sequence_ = end_of_sequence;
    tokenizer_ = serialized;
  }

  absl::Status Append(const std::vector<int32_t>& ids) override {
    const std::span<const int32_t> values(ids);
    LONGSPAN_CHECK(std::all_of(values.begin(), values.end(),
                               [this](int32_t id) { return id >= 0 && id < vocabulary_; }),
                   "a token id outside the vocabulary");
    tokens_ += static_cast<int64_t>(ids.size());
    return wide() ? tokens_spool_.Append<uint32_t>(values) : tokens_spool_.Append<uint16_t>(values);
  }

  absl::Status EndDocument() override {
    ++documents_;
    return AppendOffset(tokens_);
  }

  absl::Status Finish(const std::function<void(int64_t, int64_t)>& progress) override {
    absl::Status status = tokens_spool_.Flush();
    if (status.ok()) status = offsets_spool_.Flush();
    if (!status.ok()) return status;
    PartialFile partial(absl::StrCat(path_, ".partial-", ::getpid()));
    status = WriteHdf5(partial.path(), progress);
    if (status.ok()) status = SyncPath(partial.path(), O_RDWR);
    if (!status.ok()) return status;
    if (::rename(partial.path().c_str(), path_.c_str()) != 0) {
      return absl::ErrnoToStatus(errno,
                                 absl::StrCat("cannot rename ", partial.path(), " to ", path_));
    }
    partial.Keep();
    return SyncPath(DirectoryOf(path_), O_RDONLY | O_DIRECTORY);
  }

  int64_t documents() const override { return documents_; }
  int64_t tokens() const override { return tokens_; }

 private:
  bool wide() const { return vocabulary_ > 65536; }

  absl::Status AppendOffset(int64_t offset) {
    return offsets_spool_.Append<uint64_t>(std::span<const int64_t>(&offset, 1));
  }

  absl::Status WriteHdf5(const std::string& path,
                         const std::function<void(int64_t, int64_t)>& progress) {
    const Hdf5Session session;
    const auto failed = [&](const std::string& what) {
      return absl::InternalError(
          absl::StrCat("cannot write ", what, " of ", path_, ": ", session.Error()));
    };
    const Hdf5Handle access = AccessWithoutLocks();
    Hdf5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
    if (!file.ok()) return failed("the file");
    if (!WriteAttribute(file.get(), "format", std::string(kTokenFormat)) ||
        !WriteAttribute(file.get(), "version", kTokenFormatVersion) ||
        !WriteAttribute(file.get(), "vocab_size", vocabulary_) ||
        !WriteAttribute(file.get(), "eos", int64_t{end_of_sequence_}) ||
        !WriteAttribute(file.get(), "tokenizer_kind", kind_)) {
      return failed("the attributes");
    }
    if (!tokenizer_.empty()) {
      const Hdf5Handle dataset =
          CreateDataset(file.get(), "tokenizer", H5T_STD_U8LE, tokenizer_.size());
      if (!dataset.ok() || H5Dwrite(dataset.get(), H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                                    tokenizer_.data()) < 0) {
        return failed("/tokenizer");
      }
    }
    const int64_t total = tokens_spool_.size() + offsets_spool_.size();
    int64_t done = 0;
    const auto copy = [&](const Spool& spool, const char* name, hid_t stored, hid_t memory,
                          int64_t width) -> absl::Status {
      const int64_t count = spool.size() / width;
      Hdf5Handle dataset = CreateDataset(file.get(), name, stored, count);
      if (!dataset.ok()) return failed(name);
      const Hdf5Handle space(H5Dget_space(dataset.get()), H5Sclose);
      std::vector<std::byte> slice(std::min(kBufferBytes, spool.size()));
      for (int64_t at = 0; at < spool.size(); at += kBufferBytes) {
        const std::span<std::byte> bytes(slice.data(), std::min(kBufferBytes, spool.size() - at));
        const absl::Status status = spool.Read(at, bytes);
        if (!status.ok()) return status;
        const hsize_t start = at / width, size = bytes.size() / width;
        const Hdf5Handle slice_space(H5Screate_simple(1, &size, nullptr), H5Sclose);
        if (H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &size, nullptr) < 0 ||
            H5Dwrite(dataset.get(), memory, slice_space.get(), space.get(), H5P_DEFAULT,
                     bytes.data()) < 0) {
          return failed(name);
        }
        done += static_cast<int64_t>(bytes.size());
        if (progress) progress(done, total);
      }
      return dataset.Close() ? absl::OkStatus() : failed(name);
    };
    absl::Status status = wide()
                              ? copy(tokens_spool_, "tokens", H5T_STD_U32LE, H5T_NATIVE_UINT32, 4)
                              : copy(tokens_spool_, "tokens", H5T_STD_U16LE, H5T_NATIVE_UINT16, 2);
    if (status.ok()) {
      status = copy(offsets_spool_, "offsets", H5T_STD_U64LE, H5T_NATIVE_UINT64, 8);
    }
    if (!status.ok()) return status;
    return file.Close() ? absl::OkStatus() : failed("the end");
  }

  std::string path_;
  Spool tokens_spool_, offsets_spool_;
  std::string kind_, tokenizer_;
  int64_t vocabulary_ = 0;
  int32_t end_of_sequence_ = -1;
  int64_t documents_ = 0, tokens_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TokenFileWriter>> TokenFileWriter::Create(const std::string& path) {
  auto writer = std::make_unique<Writer>(path);
  const absl::Status status = writer->Initialize();
  if (!status.ok()) return status;
  return writer;
}

}  // namespace longspan
