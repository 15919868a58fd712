#include "checkpoint/commit.h"

#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checksum.h"
#include "checkpoint/manifest.h"
#include "checkpoint/spare_files.h"
#include "checkpoint/vote.h"

namespace longspan {
namespace {

// How long a path that another rank has made may take to show up: network file systems cache what
// they looked up.
constexpr int kVisibilityTries = 20;
constexpr auto kVisibilityPause = std::chrono::milliseconds(50);

// FailedPrecondition if this process does not see `path`, which rank `maker` has just made.
absl::Status AwaitVisible(FileSystem& files, const std::string& path, int maker) {
  for (int i = 0; i < kVisibilityTries; ++i) {
    if (files.Exists(path)) return absl::OkStatus();
    std::this_thread::sleep_for(kVisibilityPause);
  }
  return absl::FailedPreconditionError(
      path + ", which rank " + std::to_string(maker) +
      " has made, is not visible here: the checkpoint directory must be on a file system that "
      "all nodes share");
}

std::string UtcNow() {
  const std::time_t now = std::time(nullptr);
  std::tm parts;
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// Creates the checkpoint directory if need be and claims the next generation in it.
absl::StatusOr<int64_t> ClaimGeneration(FileSystem& files, const CheckpointOptions& options) {
  const absl::Status made = files.CreateDirectory(options.directory);
  if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
  if (absl::Status status = files.SyncDirectory(ParentPath(options.directory)); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::vector<std::string>> names = files.List(options.directory);
  if (!names.ok()) return names.status();
  // Two attempts that start together both claim; the one that is second gets the higher number.
  constexpr int kClaims = 100;
  int64_t generation = HighestGeneration(*names);
  for (int i = 0; i < kClaims; ++i) {
    ++generation;
    const std::string path = JoinPath(options.directory, GenerationFileName(generation));
    absl::StatusOr<std::unique_ptr<File>> file = files.Create(path);
    if (absl::IsAlreadyExists(file.status())) continue;
    if (!file.ok()) return file.status();
    const std::string text = options.run_id + "\n" + HostName() + "\n" + UtcNow() + "\n";
    absl::Status status = (*file)->WriteAt(0, text.data(), static_cast<int64_t>(text.size()));
    if (status.ok()) status = (*file)->Sync();
    if (status.ok()) status = files.SyncDirectory(options.directory);
    if (!status.ok()) return status;
    return generation;
  }
  return absl::AbortedError(options.directory + ": " + std::to_string(kClaims) +
                            " other attempts start at the same time");
}

// FailedPrecondition if a newer attempt has claimed a generation.
absl::Status CheckFence(FileSystem& files, const std::string& directory, int64_t generation) {
  absl::StatusOr<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) return names.status();
  const int64_t highest = HighestGeneration(*names);
  if (highest <= generation) return absl::OkStatus();
  return absl::FailedPreconditionError(directory + ": generation " + std::to_string(generation) +
                                       " is superseded by " + std::to_string(highest) +
                                       ": another attempt of this run has started; stop this one");
}

std::string StepPath(const CheckpointOptions& options, const StepName& name) {
  return JoinPath(options.directory, StepDirectoryName(name));
}

}  // namespace

absl::StatusOr<int64_t> OpenGeneration(FileSystem& files, const CheckpointOptions& options,
                                       Transport& transport) {
  const std::string context = absl::StrCat("checkpoint directory ", options.directory, ": ");
  absl::Status mine;
  if (options.directory.empty()) mine = absl::InvalidArgumentError("no directory is given");
  if (options.keep_last < 1) mine = absl::InvalidArgumentError("keep_last is below 1");
  if (options.keep_every < 0) mine = absl::InvalidArgumentError("keep_every is negative");
  int64_t generation = 0;
  if (mine.ok() && transport.rank() == 0) {
    absl::StatusOr<int64_t> claimed = ClaimGeneration(files, options);
    if (claimed.ok()) generation = *claimed;
    mine = claimed.status();
  }
  absl::StatusOr<std::vector<std::string>> votes =
      Vote(transport, "open", mine, std::to_string(generation));
  if (votes.ok()) {
    generation = std::stoll(votes->front());
    mine = AwaitVisible(files, JoinPath(options.directory, GenerationFileName(generation)), 0);
    votes = Vote(transport, absl::StrCat("open generation ", generation), mine);
  }
  if (!votes.ok()) {
    return absl::Status(votes.status().code(), absl::StrCat(context, votes.status().message()));
  }
  return generation;
}

absl::Status MakeStepDirectory(FileSystem& files, const CheckpointOptions& options,
                               const StepName& name) {
  const std::string directory = StepPath(options, name);
  if (absl::Status status = CheckFence(files, options.directory, name.generation); !status.ok()) {
    return status;
  }
  absl::Status made = files.CreateDirectory(directory);
  if (absl::IsAlreadyExists(made)) {
    // A save of this very attempt that failed. Its files are removed, never written to again.
    absl::StatusOr<std::vector<std::string>> names = files.List(directory);
    if (!names.ok()) return names.status();
    for (const std::string& each : *names) {
      if (each == kCommitName) {
        return absl::AlreadyExistsError(absl::StrCat(directory, " is committed"));
      }
    }
    made = DeleteStepDirectory(files, directory);
    if (made.ok()) made = files.CreateDirectory(directory);
  }
  if (!made.ok()) return made;
  absl::Status synced = files.SyncDirectory(options.directory);
  if (!synced.ok()) RemoveFailedStep(files, options, name);
  return synced;
}

absl::StatusOr<std::unique_ptr<File>> CreateRankFile(FileSystem& files,
                                                     const std::string& directory, int rank,
                                                     int64_t bytes) {
  if (absl::Status status = AwaitVisible(files, directory, 0); !status.ok()) return status;
  if (std::unique_ptr<File> spare = TakeSpare(files, directory, rank, bytes)) return spare;
  absl::StatusOr<std::unique_ptr<File>> file =
      files.Create(JoinPath(directory, RankFileName(rank)));
  if (!file.ok()) return file;
  if (absl::Status status = (*file)->Reserve(bytes); !status.ok()) return status;
  return file;
}

absl::StatusOr<std::string> FinishRankFile(FileSystem& files, const std::string& directory,
                                           int rank, const RankFileLayout& layout,
                                           const std::vector<StateRegion>& regions,
                                           RankFileSums sums) {
  if (absl::Status status = files.SyncDirectory(directory); !status.ok()) return status;
  RankContribution contribution;
  contribution.file.name = RankFileName(rank);
  contribution.file.bytes = layout.bytes;
  contribution.file.chunk_crc32c = std::move(sums.chunk_crc32c);
  for (size_t i = 0; i < regions.size(); ++i) {
    const StateRegion& region = regions[i];
    contribution.tensors.push_back(
        {region.group, region.tensor, region.dtype, region.global_shape, sums.region_crc64[i]});
    if (layout.offsets[i] >= 0) {
      contribution.file.regions.push_back(
          {static_cast<int>(i), region.flat_begin, region.flat_end, layout.offsets[i]});
    }
  }
  return SerializeContribution(contribution);
}

absl::StatusOr<StepRecords> JoinStep(const CheckpointOptions& options, const StepName& name,
                                     const std::vector<std::string>& contributions,
                                     const std::string& metadata, const uint64_t* refused_hash) {
  std::vector<RankContribution> parts;
  for (const std::string& contribution : contributions) {
    absl::StatusOr<RankContribution> part = ParseContribution(contribution);
    if (!part.ok()) return part.status();
    parts.push_back(*std::move(part));
  }
  Manifest manifest;
  manifest.run_id = options.run_id;
  manifest.generation = name.generation;
  manifest.step = name.step;
  manifest.chunk_bytes = kChunkBytes;
  manifest.run = metadata;
  if (absl::Status status = JoinContributions(parts, manifest); !status.ok()) return status;
  if (refused_hash != nullptr && manifest.state_hash == *refused_hash) {
    return absl::DataLossError(absl::StrCat(
        "the state is that of the save before (hash ", Hex64(manifest.state_hash),
        ") although an update came in between: what was copied is not what the update left"));
  }
  absl::StatusOr<std::string> text = SerializeManifest(manifest);
  if (!text.ok()) return text.status();
  CommitRecord record;
  record.run_id = options.run_id;
  record.generation = name.generation;
  record.step = name.step;
  record.root_hash = ExtendCrc64(0, text->data(), static_cast<int64_t>(text->size()));
  record.time = UtcNow();
  StepRecords records;
  records.manifest = *std::move(text);
  records.commit = SerializeCommit(record);
  records.state_hash = manifest.state_hash;
  for (const ManifestFile& file : manifest.files) records.files.push_back(file.name);
  return records;
}

absl::StatusOr<uint64_t> CommitStep(FileSystem& files, const CheckpointOptions& options,
                                    const StepName& name,
                                    const std::vector<std::string>& contributions,
                                    const std::string& metadata, const uint64_t* refused_hash) {
  const std::string directory = StepPath(options, name);
  absl::StatusOr<StepRecords> records =
      JoinStep(options, name, contributions, metadata, refused_hash);
  if (!records.ok()) return records.status();
  for (size_t rank = 0; rank < records->files.size(); ++rank) {
    // A node with a file system of its own may have a directory of the same name.
    if (absl::Status status =
            AwaitVisible(files, JoinPath(directory, records->files[rank]), static_cast<int>(rank));
        !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = CreateDurably(files, directory, kManifestName, records->manifest);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckFence(files, options.directory, name.generation); !status.ok()) {
    return status;
  }
  if (absl::Status status = ReplaceDurably(files, directory, kCommitName, records->commit);
      !status.ok()) {
    return status;
  }
  return records->state_hash;
}

std::vector<std::string> FinishCommitted(FileSystem& files, const CheckpointOptions& options,
                                         const StepName& name, const UnderWay& under_way) {
  std::vector<std::string> warnings;
  if (absl::Status status = ReplaceDurably(files, options.directory, kLatestName,
                                           absl::StrCat(StepDirectoryName(name), "\n"));
      !status.ok()) {
    warnings.push_back(std::string(status.message()));
  }
  for (std::string& problem : ApplyRetention(files, options, name, under_way)) {
    warnings.push_back(std::move(problem));
  }
  return warnings;
}

void RemoveFailedStep(FileSystem& files, const CheckpointOptions& options, const StepName& name) {
  if (DeleteStepDirectory(files, StepPath(options, name)).ok()) {
    files.SyncDirectory(options.directory).IgnoreError();
  }
}

std::string SaveTag(const StepName& name, int64_t attempt, const std::string& metadata) {
  // The metadata's hash is part of the tag: ranks that captured different values find out before
  // anything counts.
  return absl::StrCat(
      "generation ", name.generation, " step ", name.step, " attempt ", attempt, " metadata ",
      Hex64(ExtendCrc64(0, metadata.data(), static_cast<int64_t>(metadata.size()))));
}

}  // namespace longspan
