// Reads a whole checkpoint and compares it with its manifest.
#include <algorithm>
#include <memory>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checksum.h"
#include "checkpoint/manifest.h"
#include "checkpoint/parity_file.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/step_directory.h"

namespace longspan {
namespace {

constexpr size_t kMostProblems = 20;  // named in the message

struct TensorPart {
  int64_t flat_begin, flat_end;
  uint64_t crc64;
};

// Reads one file chunk by chunk. Appends a line for all that is wrong, and the CRCs of the regions
// it holds.
void VerifyFile(FileSystem& files, const std::string& path, const Manifest& manifest,
                const ManifestFile& entry, std::vector<std::vector<TensorPart>>& parts,
                std::vector<std::string>& problems) {
  absl::StatusOr<std::unique_ptr<File>> file = files.OpenForRead(path);
  if (!file.ok()) {
    problems.push_back(std::string(file.status().message()));
    return;
  }
  absl::StatusOr<int64_t> size = (*file)->Size();
  if (!size.ok() || *size != entry.bytes) {
    problems.push_back(size.ok() ? path + " has " + std::to_string(*size) +
                                       " bytes, the manifest says " + std::to_string(entry.bytes)
                                 : std::string(size.status().message()));
    return;
  }
  std::vector<ManifestRegion> regions = entry.regions;
  std::sort(regions.begin(), regions.end(),
            [](const ManifestRegion& a, const ManifestRegion& b) { return a.offset < b.offset; });
  std::vector<uint64_t> crcs(regions.size(), 0);
  const auto region_end = [&](const ManifestRegion& region) {
    return region.offset +
           (region.flat_end - region.flat_begin) * SizeOf(manifest.tensors[region.tensor].dtype);
  };
  const std::unique_ptr<char[]> buffer(
      new char[static_cast<size_t>(std::min(entry.bytes, manifest.chunk_bytes))]);
  size_t first = 0;  // region that is not yet read to its end
  for (size_t chunk = 0; chunk < entry.chunk_crc32c.size(); ++chunk) {
    const int64_t begin = static_cast<int64_t>(chunk) * manifest.chunk_bytes;
    const int64_t end = std::min(entry.bytes, begin + manifest.chunk_bytes);
    if (absl::Status status = (*file)->ReadAt(begin, buffer.get(), end - begin); !status.ok()) {
      problems.push_back(std::string(status.message()));
      return;
    }
    const uint32_t crc = Crc32c(buffer.get(), end - begin);
    if (crc != entry.chunk_crc32c[chunk]) {
      problems.push_back(path + ": bytes [" + std::to_string(begin) + ", " + std::to_string(end) +
                         ") are damaged: CRC-32C " + Hex32(crc) + ", the manifest says " +
                         Hex32(entry.chunk_crc32c[chunk]));
    }
    while (first < regions.size() && region_end(regions[first]) <= begin) ++first;
    for (size_t r = first; r < regions.size() && regions[r].offset < end; ++r) {
      const int64_t from = std::max(begin, regions[r].offset);
      const int64_t to = std::min(end, region_end(regions[r]));
      crcs[r] =
          ExtendCrc64(crcs[r], buffer.get() + (from - begin), std::max<int64_t>(0, to - from));
    }
  }
  for (size_t r = 0; r < regions.size(); ++r) {
    parts[regions[r].tensor].push_back({regions[r].flat_begin, regions[r].flat_end, crcs[r]});
  }
}

// Reads one parity file symbol by symbol, and compares what it protects with the manifest. Its
// symbols are not computed anew: that takes files of other nodes.
void VerifyParity(FileSystem& files, const std::string& path, const Manifest& manifest,
                  std::vector<std::string>& problems) {
  absl::StatusOr<std::unique_ptr<ParityFileReader>> reader = ParityFileReader::Open(files, path);
  if (!reader.ok()) {
    problems.push_back(std::string(reader.status().message()));
    return;
  }
  const ParityDescription& description = (*reader)->description();
  bool fits = description.run_id == manifest.run_id && description.step.step == manifest.step &&
              description.step.generation == manifest.generation;
  for (size_t member = 0; member < description.files.size(); ++member) {
    if (description.files[member].empty()) continue;
    fits &= std::any_of(manifest.files.begin(), manifest.files.end(), [&](const auto& file) {
      return file.name == description.files[member] &&
             file.bytes == description.layout.file_bytes[member];
    });
  }
  if (!fits) problems.push_back(path + " protects other files than the manifest names");
  const std::unique_ptr<char[]> symbol(
      new char[static_cast<size_t>(description.layout.symbol_bytes)]);
  for (size_t number = 0; number < description.symbol_crc32c.size(); ++number) {
    const absl::Status status = (*reader)->Read(static_cast<int64_t>(number), symbol.get());
    if (!status.ok()) problems.push_back(std::string(status.message()));
  }
}

}  // namespace

absl::Status VerifyCheckpoint(FileSystem& files, const CheckpointInfo& info,
                              std::vector<std::string>* elsewhere) {
  absl::StatusOr<Manifest> manifest = ReadCommittedManifest(
      files, info.directory, nullptr, elsewhere == nullptr ? Holds::kAllFiles : Holds::kSomeFiles);
  if (!manifest.ok()) return manifest.status();
  absl::StatusOr<std::vector<std::string>> missing =
      FilesElsewhere(files, *manifest, info.directory);
  if (!missing.ok()) return missing.status();

  std::vector<std::string> problems;
  std::vector<std::vector<TensorPart>> parts(manifest->tensors.size());
  std::vector<bool> whole(manifest->tensors.size(), true);  // as far as files are here
  for (const ManifestFile& entry : manifest->files) {
    if (std::find(missing->begin(), missing->end(), entry.name) != missing->end()) {
      for (const ManifestRegion& region : entry.regions) whole[region.tensor] = false;
      continue;
    }
    VerifyFile(files, JoinPath(info.directory, entry.name), *manifest, entry, parts, problems);
  }
  absl::StatusOr<std::vector<std::string>> names = files.List(info.directory);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (!IsParityFileName(name)) continue;
    VerifyParity(files, JoinPath(info.directory, name), *manifest, problems);
  }
  if (problems.empty()) {
    std::vector<ManifestTensor> tensors = manifest->tensors;
    for (size_t t = 0; t < tensors.size(); ++t) {
      if (!whole[t]) continue;
      std::sort(parts[t].begin(), parts[t].end(), [](const TensorPart& a, const TensorPart& b) {
        return a.flat_begin < b.flat_begin;
      });
      int64_t next = 0;
      tensors[t].crc64 = 0;
      for (const TensorPart& part : parts[t]) {
        if (part.flat_begin != next) break;
        tensors[t].crc64 =
            CombineCrc64(tensors[t].crc64, part.crc64,
                         (part.flat_end - part.flat_begin) * SizeOf(tensors[t].dtype));
        next = part.flat_end;
      }
      const std::string name = tensors[t].group + "/" + tensors[t].tensor;
      if (next != ShapeElements(tensors[t].shape)) {
        problems.push_back(info.directory + ": " + name + " is not stored exactly once");
      } else if (tensors[t].crc64 != manifest->tensors[t].crc64) {
        problems.push_back(info.directory + ": the bytes of " + name +
                           " are not those that were saved");
      }
    }
    if (problems.empty() && StateHash(tensors) != manifest->state_hash) {
      problems.push_back(info.directory + ": the state hash does not fit the tensors");
    }
  }
  if (elsewhere != nullptr) *elsewhere = *std::move(missing);
  if (problems.empty()) return absl::OkStatus();
  std::string message;
  for (size_t i = 0; i < problems.size() && i < kMostProblems; ++i) {
    message += (i == 0 ? "" : "\n") + problems[i];
  }
  if (problems.size() > kMostProblems) {
    message += "\nand " + std::to_string(problems.size() - kMostProblems) + " more";
  }
  return absl::DataLossError(message);
}

}  // namespace longspan
