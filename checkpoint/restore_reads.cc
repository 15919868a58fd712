#include "checkpoint/restore_reads.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/checksum.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/step_directory.h"
#include "checkpoint/storage.h"

namespace longspan {
namespace {

// Reads under way: one thread waits for the disk while others verify and copy.
constexpr size_t kReaders = 4;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// The tensor of a wanted region, checked against what the checkpoint has, as an index.
absl::StatusOr<int> MatchRegion(const Manifest& manifest, const StateRegion& region,
                                const std::map<std::pair<std::string, std::string>, int>& index,
                                const std::string& source) {
  const std::string name = region.group + "/" + region.tensor;
  const auto found = index.find({region.group, region.tensor});
  if (found == index.end()) return absl::NotFoundError(source + " has no tensor " + name);
  const ManifestTensor& tensor = manifest.tensors[found->second];
  if (tensor.dtype != region.dtype || tensor.shape != region.global_shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, " is ", Name(tensor.dtype), " ", ShapeText(tensor.shape), " in ", source, ", but ",
        Name(region.dtype), " ", ShapeText(region.global_shape), " is wanted"));
  }
  if (region.flat_begin < 0 || region.flat_end < region.flat_begin ||
      region.flat_end > ShapeElements(tensor.shape) ||
      (region.data == nullptr && region.flat_end > region.flat_begin)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": the range [", region.flat_begin, ", ",
                                                   region.flat_end,
                                                   ") is not within the tensor, or has no memory"));
  }
  return found->second;
}

using Copy = RestoreRead::Copy;

// Adds the bytes [offset, offset + bytes), cut at the borders of chunks.
void AddCopies(int64_t offset, int64_t bytes, int64_t chunk_bytes, char* to,
               std::vector<Copy>& copies) {
  while (bytes > 0) {
    const int64_t part = std::min(bytes, chunk_bytes - offset % chunk_bytes);
    copies.push_back({offset, part, to});
    offset += part;
    to += part;
    bytes -= part;
  }
}

// `copies` of one file, which do not cross borders of chunks, as reads.
void AddReads(int file, int64_t file_bytes, int64_t chunk_bytes, std::vector<Copy> copies,
              std::vector<RestoreRead>& reads) {
  std::sort(copies.begin(), copies.end(),
            [](const Copy& a, const Copy& b) { return a.offset < b.offset; });
  const int64_t chunks_a_read = std::max<int64_t>(1, kRestoreReadBytes / chunk_bytes);
  int64_t first = 0, last = -2;  // chunks of the read that grows
  for (const Copy& copy : copies) {
    const int64_t chunk = copy.offset / chunk_bytes;
    if (chunk > last + 1 || chunk >= first + chunks_a_read) {
      RestoreRead read;
      read.file = file;
      read.begin = chunk * chunk_bytes;
      reads.push_back(std::move(read));
      first = chunk;
    }
    last = chunk;
    reads.back().end = std::min(file_bytes, (last + 1) * chunk_bytes);
    reads.back().copies.push_back(copy);
  }
}

// The checksums of a read's chunks, of bytes that come in parts.
class ChunkCheck {
 public:
  // All of these outlive it.
  ChunkCheck(const Manifest& manifest, const RestoreRead& read, const std::string& path)
      : manifest_(manifest), read_(read), path_(path), at_(read.begin) {}

  // The next `count` bytes of the read; DataLoss if a chunk that ends in them is damaged.
  absl::Status Extend(const char* bytes, int64_t count) {
    for (const int64_t end = at_ + count; at_ < end;) {
      const int64_t chunk = at_ / manifest_.chunk_bytes;
      const int64_t begin = chunk * manifest_.chunk_bytes;
      const int64_t chunk_end = std::min(begin + manifest_.chunk_bytes, read_.end);
      const int64_t part = std::min(end, chunk_end) - at_;
      crc_ = ExtendCrc32c(crc_, bytes, part);
      at_ += part;
      bytes += part;
      if (at_ < chunk_end) continue;
      const uint32_t expected = manifest_.files[read_.file].chunk_crc32c[chunk];
      if (crc_ != expected) {
        return absl::DataLossError(absl::StrCat(path_, ": bytes [", begin, ", ", chunk_end,
                                                ") are damaged: CRC-32C ", Hex32(crc_),
                                                ", the manifest says ", Hex32(expected)));
      }
      crc_ = 0;
    }
    return absl::OkStatus();
  }

 private:
  const Manifest& manifest_;
  const RestoreRead& read_;
  const std::string& path_;
  int64_t at_;
  uint32_t crc_ = 0;  // of the chunk that is under way
};

// Of the bytes [begin, end) of the file, those that regions want.
void CopyPart(const RestoreRead& read, int64_t begin, int64_t end, const char* bytes) {
  for (const Copy& copy : read.copies) {
    const int64_t from = std::max(begin, copy.offset);
    const int64_t to = std::min(end, copy.offset + copy.bytes);
    if (from >= to) continue;
    std::memcpy(copy.to + (from - copy.offset), bytes + (from - begin),
                static_cast<size_t>(to - from));
  }
}

// Part by part, so that bytes which come out of memory are in the cache when they are checked and
// copied.
absl::Status CarryOut(const Manifest& manifest, const RestoreRead& read, const std::string& path,
                      File& file, char* buffer) {
  ChunkCheck check(manifest, read, path);
  const int64_t unit = std::min(file.ReadUnit(), read.end - read.begin);
  for (int64_t at = read.begin; at < read.end; at += unit) {
    const int64_t end = std::min(at + unit, read.end);
    if (absl::Status status = file.ReadAt(at, buffer, end - at); !status.ok()) return status;
    if (absl::Status status = check.Extend(buffer, end - at); !status.ok()) return status;
    CopyPart(read, at, end, buffer);
  }
  return absl::OkStatus();
}

// Files that are open for reading, by path; each is opened once, and its size compared.
class OpenFiles {
 public:
  explicit OpenFiles(FileSystem& files) : files_(files) {}
  absl::StatusOr<File*> Get(const std::string& path, int64_t bytes) {
    const std::lock_guard lock(mutex_);
    auto [entry, added] = open_.try_emplace(path, absl::UnknownError("not opened"));
    if (added) entry->second = Open(path, bytes);
    if (!entry->second.ok()) return entry->second.status();
    return entry->second->get();
  }

 private:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, int64_t bytes) {
    absl::StatusOr<std::unique_ptr<File>> file = files_.OpenForRead(path);
    if (!file.ok()) return file;
    absl::StatusOr<int64_t> size = (*file)->Size();
    if (!size.ok()) return size.status();
    if (*size != bytes) {
      return absl::DataLossError(
          absl::StrCat(path, " has ", *size, " bytes, the manifest says ", bytes));
    }
    return file;
  }

  FileSystem& files_;
  std::mutex mutex_;
  std::map<std::string, absl::StatusOr<std::unique_ptr<File>>> open_;
};

}  // namespace

ReadBuffer::ReadBuffer(int64_t bytes)
    : memory_(static_cast<char*>(std::aligned_alloc(
          kStorageAlignment, static_cast<size_t>((bytes + kStorageAlignment - 1) /
                                                 kStorageAlignment * kStorageAlignment)))) {
  if (memory_ == nullptr) throw std::bad_alloc();
}

void ReadBuffer::Free::operator()(char* memory) const { std::free(memory); }

absl::StatusOr<std::vector<RestoreRead>> PlanRestore(const Manifest& manifest,
                                                     const std::string& source,
                                                     const std::vector<StateRegion>& regions) {
  std::map<std::pair<std::string, std::string>, int> index;
  for (size_t i = 0; i < manifest.tensors.size(); ++i) {
    index[{manifest.tensors[i].group, manifest.tensors[i].tensor}] = static_cast<int>(i);
  }
  std::vector<std::vector<const StateRegion*>> wanted(manifest.tensors.size());
  int64_t missing = 0;  // elements that no file has given yet
  for (const StateRegion& region : regions) {
    absl::StatusOr<int> tensor = MatchRegion(manifest, region, index, source);
    if (!tensor.ok()) return tensor.status();
    wanted[*tensor].push_back(&region);
    missing += RegionElements(region);
  }

  std::vector<RestoreRead> reads;
  for (size_t f = 0; f < manifest.files.size(); ++f) {
    std::vector<Copy> copies;
    for (const ManifestRegion& stored : manifest.files[f].regions) {
      for (const StateRegion* region : wanted[stored.tensor]) {
        const int64_t begin = std::max(stored.flat_begin, region->flat_begin);
        const int64_t end = std::min(stored.flat_end, region->flat_end);
        if (begin >= end) continue;
        const int64_t element = SizeOf(region->dtype);
        AddCopies(stored.offset + (begin - stored.flat_begin) * element, (end - begin) * element,
                  manifest.chunk_bytes,
                  static_cast<char*>(region->data) + (begin - region->flat_begin) * element,
                  copies);
        missing -= end - begin;
      }
    }
    AddReads(static_cast<int>(f), manifest.files[f].bytes, manifest.chunk_bytes, std::move(copies),
             reads);
  }
  // The writer lets every element be stored exactly once; a manifest that does not is not one of
  // ours.
  if (missing != 0) {
    return absl::DataLossError(JoinPath(source, kManifestName) +
                               ": the files do not hold every wanted element exactly once");
  }
  return reads;
}

absl::Status CheckChunks(const Manifest& manifest, const RestoreRead& read, const std::string& path,
                         const char* bytes) {
  return ChunkCheck(manifest, read, path).Extend(bytes, read.end - read.begin);
}

void CopyToRegions(const RestoreRead& read, const char* bytes) {
  CopyPart(read, read.begin, read.end, bytes);
}

absl::Status ReadAndVerify(FileSystem& files, const Manifest& manifest,
                           const std::vector<RestoreRead>& reads,
                           const std::function<std::string(const RestoreRead&)>& path_of,
                           std::vector<size_t>* failed) {
  OpenFiles open(files);
  int64_t longest = 0;
  for (const RestoreRead& read : reads) longest = std::max(longest, read.end - read.begin);
  std::mutex mutex;
  std::map<size_t, absl::Status> failures;
  std::atomic<size_t> next = 0;
  std::atomic<bool> ended = false;
  const auto serve = [&] {
    const ReadBuffer buffer(longest);
    // In order, so that whatever comes before a failure has been tried as well.
    for (size_t i = next++; i < reads.size() && !ended; i = next++) {
      const RestoreRead& read = reads[i];
      const std::string path = path_of(read);
      if (path.empty()) continue;
      absl::StatusOr<File*> file = open.Get(path, manifest.files[read.file].bytes);
      absl::Status status = file.status();
      if (status.ok()) status = CarryOut(manifest, read, path, **file, buffer.data());
      if (status.ok()) continue;
      if (failed == nullptr) ended = true;
      const std::lock_guard lock(mutex);
      failures.emplace(i, status);
    }
  };
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(kReaders, reads.size()); ++i) helpers.emplace_back(serve);
  serve();
  for (std::thread& helper : helpers) helper.join();
  if (failures.empty()) return absl::OkStatus();
  if (failed != nullptr) {
    for (const auto& [i, status] : failures) failed->push_back(i);
  }
  return failures.begin()->second;
}

}  // namespace longspan
