// Finding checkpoints and reading them back on any number of ranks. Only manifest and raw bytes are
// needed, not HDF5.
#include <algorithm>
#include <optional>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "checkpoint/restore_reads.h"
#include "checkpoint/step_directory.h"

namespace longspan {
namespace {

// The manifest that `info` was made from: the directory may have been replaced since.
absl::StatusOr<Manifest> ManifestOf(FileSystem& files, const CheckpointInfo& info, Holds holds) {
  absl::StatusOr<Manifest> manifest = ReadCommittedManifest(files, info.directory, nullptr, holds);
  if (manifest.ok() && (manifest->generation != info.generation || manifest->step != info.step)) {
    return absl::DataLossError(info.directory + " holds another step than it did");
  }
  return manifest;
}

absl::StatusOr<CheckpointInfo> ReadInfo(FileSystem& files, const std::string& step_directory,
                                        Holds holds) {
  CommitRecord record;
  absl::StatusOr<Manifest> manifest = ReadCommittedManifest(files, step_directory, &record, holds);
  if (!manifest.ok()) return manifest.status();
  CheckpointInfo info = InfoOf(*manifest, step_directory);
  info.time = record.time;
  return info;
}

}  // namespace

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

absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(FileSystem& files,
                                                  const std::string& step_directory,
                                                  std::vector<std::string>* elsewhere) {
  absl::StatusOr<CheckpointInfo> info =
      ReadInfo(files, step_directory, elsewhere == nullptr ? Holds::kAllFiles : Holds::kSomeFiles);
  if (!info.ok() || elsewhere == nullptr) return info;
  absl::StatusOr<Manifest> manifest = ManifestOf(files, *info, Holds::kSomeFiles);
  if (!manifest.ok()) return manifest.status();
  absl::StatusOr<std::vector<std::string>> missing =
      FilesElsewhere(files, *manifest, step_directory);
  if (!missing.ok()) return missing.status();
  *elsewhere = *std::move(missing);
  return info;
}

absl::StatusOr<std::vector<CheckpointInfo>> ListCheckpoints(FileSystem& files,
                                                            const std::string& directory,
                                                            std::vector<std::string>* skipped) {
  return ListCommitted(files, directory, Holds::kAllFiles, skipped);
}

absl::StatusOr<std::vector<CheckpointInfo>> ListCommitted(FileSystem& files,
                                                          const std::string& directory, Holds holds,
                                                          std::vector<std::string>* skipped) {
  std::vector<CheckpointInfo> committed;
  absl::StatusOr<std::vector<std::string>> names = files.List(directory);
  if (absl::IsNotFound(names.status())) return committed;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const std::optional<StepName> parsed = ParseStepDirectoryName(name);
    if (!parsed) continue;
    const std::string path = JoinPath(directory, name);
    absl::StatusOr<CheckpointInfo> info = ReadInfo(files, path, holds);
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
  absl::StatusOr<Manifest> manifest = ManifestOf(files, info, Holds::kAllFiles);
  if (!manifest.ok()) return manifest.status();

  absl::StatusOr<std::vector<RestoreRead>> reads = PlanRestore(*manifest, info.directory, regions);
  if (!reads.ok()) return reads.status();
  return ReadAndVerify(files, *manifest, *reads, [&](const RestoreRead& read) {
    return JoinPath(info.directory, manifest->files[read.file].name);
  });
}

std::vector<CheckpointTensor> TensorsOf(const Manifest& manifest) {
  std::vector<CheckpointTensor> tensors;
  for (const ManifestTensor& tensor : manifest.tensors) {
    tensors.push_back({tensor.group, tensor.tensor, tensor.dtype, tensor.shape, tensor.crc64});
  }
  return tensors;
}

absl::StatusOr<std::vector<CheckpointTensor>> ListTensors(FileSystem& files,
                                                          const CheckpointInfo& info) {
  absl::StatusOr<Manifest> manifest = ManifestOf(files, info, Holds::kSomeFiles);
  if (!manifest.ok()) return manifest.status();
  return TensorsOf(*manifest);
}

}  // namespace longspan
