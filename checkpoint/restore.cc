// Finding checkpoints and reading them back on any number of ranks. Only manifest and raw bytes are
// needed, not HDF5.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checksum.h"
#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/step_directory.h"

namespace longspan {
namespace {

constexpr int64_t kReadBytes = int64_t{16} << 20;  // about one ReadAt

// Bytes of a file that go to memory; never across a border of chunks.
struct Copy {
  int64_t offset, bytes;  // in the file
  char* to;
};

CheckpointInfo InfoOf(const Manifest& manifest, const std::string& directory) {
  CheckpointInfo info;
  info.directory = directory;
  info.generation = manifest.generation;
  info.step = manifest.step;
  info.ranks = static_cast<int>(manifest.files.size());
  for (const ManifestFile& file : manifest.files) info.bytes += file.bytes;
  info.run_id = manifest.run_id;
  info.metadata = manifest.run;
  return info;
}

// The manifest that `info` was made from: the directory may have been replaced since.
absl::StatusOr<Manifest> ManifestOf(FileSystem& files, const CheckpointInfo& info) {
  absl::StatusOr<Manifest> manifest = ReadCommittedManifest(files, info.directory);
  if (manifest.ok() && (manifest->generation != info.generation || manifest->step != info.step)) {
    return absl::DataLossError(info.directory + " holds another step than it did");
  }
  return manifest;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

// Tensor and range of a wanted region, checked against what the checkpoint has. Returns the
// tensor's index.
absl::StatusOr<int> MatchRegion(const Manifest& manifest, const StateRegion& region,
                                const std::map<std::pair<std::string, std::string>, int>& index,
                                const std::string& directory) {
  const std::string name = region.group + "/" + region.tensor;
  const auto found = index.find({region.group, region.tensor});
  if (found == index.end()) return absl::NotFoundError(directory + " has no tensor " + name);
  const ManifestTensor& tensor = manifest.tensors[found->second];
  if (tensor.dtype != region.dtype || tensor.shape != region.global_shape) {
    return absl::InvalidArgumentError(
        name + " is " + Name(tensor.dtype) + " " + ShapeText(tensor.shape) + " in " + directory +
        ", but " + Name(region.dtype) + " " + ShapeText(region.global_shape) + " is wanted");
  }
  if (region.flat_begin < 0 || region.flat_end < region.flat_begin ||
      region.flat_end > ShapeElements(tensor.shape) ||
      (region.data == nullptr && region.flat_end > region.flat_begin)) {
    return absl::InvalidArgumentError(name + ": the range [" + std::to_string(region.flat_begin) +
                                      ", " + std::to_string(region.flat_end) +
                                      ") is not within the tensor, or has no memory");
  }
  return found->second;
}

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

// Reads the chunks that `copies` (sorted by offset) touch, each once, verifies them and copies.
absl::Status ReadCopies(FileSystem& files, const std::string& path, const ManifestFile& entry,
                        int64_t chunk_bytes, const std::vector<Copy>& copies) {
  if (copies.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<File>> file = files.OpenForRead(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<int64_t> size = (*file)->Size();
  if (!size.ok()) return size.status();
  if (*size != entry.bytes) {
    return absl::DataLossError(path + " has " + std::to_string(*size) +
                               " bytes, the manifest says " + std::to_string(entry.bytes));
  }
  const int64_t chunks_a_read = std::max<int64_t>(1, kReadBytes / chunk_bytes);
  const std::unique_ptr<char[]> buffer(
      new char[static_cast<size_t>(std::min(entry.bytes, chunks_a_read * chunk_bytes))]);
  for (size_t next = 0; next < copies.size();) {
    // One read: neighbouring chunks, as far as each is needed.
    const int64_t first = copies[next].offset / chunk_bytes;
    int64_t last = first;
    size_t end = next;
    for (; end < copies.size(); ++end) {
      const int64_t chunk = copies[end].offset / chunk_bytes;
      if (chunk > last + 1 || chunk >= first + chunks_a_read) break;
      last = chunk;
    }
    const int64_t begin = first * chunk_bytes;
    const int64_t bytes = std::min(entry.bytes, (last + 1) * chunk_bytes) - begin;
    if (absl::Status status = (*file)->ReadAt(begin, buffer.get(), bytes); !status.ok()) {
      return status;
    }
    for (int64_t chunk = first; chunk <= last; ++chunk) {
      const int64_t at = chunk * chunk_bytes;
      const int64_t length = std::min(chunk_bytes, entry.bytes - at);
      const uint32_t crc = Crc32c(buffer.get() + (at - begin), length);
      if (crc != entry.chunk_crc32c[chunk]) {
        return absl::DataLossError(path + ": bytes [" + std::to_string(at) + ", " +
                                   std::to_string(at + length) + ") are damaged: CRC-32C " +
                                   Hex32(crc) + ", the manifest says " +
                                   Hex32(entry.chunk_crc32c[chunk]));
      }
    }
    for (; next < end; ++next) {
      std::memcpy(copies[next].to, buffer.get() + (copies[next].offset - begin),
                  static_cast<size_t>(copies[next].bytes));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(FileSystem& files,
                                                  const std::string& step_directory) {
  CommitRecord record;
  absl::StatusOr<Manifest> manifest = ReadCommittedManifest(files, step_directory, &record);
  if (!manifest.ok()) return manifest.status();
  CheckpointInfo info = InfoOf(*manifest, step_directory);
  info.time = record.time;
  return info;
}

absl::StatusOr<std::vector<CheckpointInfo>> ListCheckpoints(FileSystem& files,
                                                            const std::string& directory,
                                                            std::vector<std::string>* skipped) {
  std::vector<CheckpointInfo> committed;
  absl::StatusOr<std::vector<std::string>> names = files.List(directory);
  if (absl::IsNotFound(names.status())) return committed;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const std::optional<StepName> parsed = ParseStepDirectoryName(name);
    if (!parsed) continue;
    const std::string path = JoinPath(directory, name);
    absl::StatusOr<CheckpointInfo> info = ReadCheckpointInfo(files, path);
    absl::Status status = info.status();
    if (status.ok() && (info->step != parsed->step || info->generation != parsed->generation)) {
      status = absl::DataLossError(path + " holds step " + std::to_string(info->step) +
                                   " of generation " + std::to_string(info->generation));
    }
    // Not finished, damaged or of a later version: left out. A disk that cannot be read says
    // nothing about what is on it, and whoever took that for "no checkpoint" would go on from an
    // older one.
    const bool known =
        absl::IsNotFound(status) || absl::IsDataLoss(status) || absl::IsFailedPrecondition(status);
    if (status.ok()) {
      committed.push_back(*std::move(info));
    } else if (!known) {
      return status;
    } else if (skipped != nullptr) {
      skipped->push_back(std::string(status.message()));
    }
  }
  std::sort(committed.begin(), committed.end(),
            [](const CheckpointInfo& a, const CheckpointInfo& b) {
              return std::pair(a.generation, a.step) > std::pair(b.generation, b.step);
            });
  return committed;
}

absl::Status RestoreRegions(FileSystem& files, const CheckpointInfo& info,
                            const std::vector<StateRegion>& regions) {
  absl::StatusOr<Manifest> manifest = ManifestOf(files, info);
  if (!manifest.ok()) return manifest.status();

  std::map<std::pair<std::string, std::string>, int> index;
  for (size_t i = 0; i < manifest->tensors.size(); ++i) {
    index[{manifest->tensors[i].group, manifest->tensors[i].tensor}] = static_cast<int>(i);
  }
  std::vector<std::vector<const StateRegion*>> wanted(manifest->tensors.size());
  int64_t missing = 0;  // elements that no file has given yet
  for (const StateRegion& region : regions) {
    absl::StatusOr<int> tensor = MatchRegion(*manifest, region, index, info.directory);
    if (!tensor.ok()) return tensor.status();
    wanted[*tensor].push_back(&region);
    missing += RegionElements(region);
  }

  std::vector<std::vector<Copy>> copies(manifest->files.size());
  for (size_t f = 0; f < manifest->files.size(); ++f) {
    for (const ManifestRegion& stored : manifest->files[f].regions) {
      for (const StateRegion* region : wanted[stored.tensor]) {
        const int64_t begin = std::max(stored.flat_begin, region->flat_begin);
        const int64_t end = std::min(stored.flat_end, region->flat_end);
        if (begin >= end) continue;
        const int64_t element = SizeOf(region->dtype);
        AddCopies(stored.offset + (begin - stored.flat_begin) * element, (end - begin) * element,
                  manifest->chunk_bytes,
                  static_cast<char*>(region->data) + (begin - region->flat_begin) * element,
                  copies[f]);
        missing -= end - begin;
      }
    }
  }
  // The writer lets every element be stored exactly once; a manifest that does not is not one of
  // ours.
  if (missing != 0) {
    return absl::DataLossError(JoinPath(info.directory, kManifestName) +
                               ": the files do not hold every wanted element exactly once");
  }
  for (size_t f = 0; f < copies.size(); ++f) {
    std::sort(copies[f].begin(), copies[f].end(),
              [](const Copy& a, const Copy& b) { return a.offset < b.offset; });
    const ManifestFile& entry = manifest->files[f];
    if (absl::Status status = ReadCopies(files, JoinPath(info.directory, entry.name), entry,
                                         manifest->chunk_bytes, copies[f]);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CheckpointTensor>> ListTensors(FileSystem& files,
                                                          const CheckpointInfo& info) {
  absl::StatusOr<Manifest> manifest = ManifestOf(files, info);
  if (!manifest.ok()) return manifest.status();
  std::vector<CheckpointTensor> tensors;
  for (const ManifestTensor& tensor : manifest->tensors) {
    tensors.push_back({tensor.group, tensor.tensor, tensor.dtype, tensor.shape, tensor.crc64});
  }
  return tensors;
}

}  // namespace longspan
