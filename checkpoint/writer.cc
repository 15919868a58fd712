// The commit order (checkpoint.md 5):
//
//   mkdir step, sync parent | vote | rank files created, written, synced, step directory synced |
//   vote | manifest.json written, synced, step directory synced | COMMIT.tmp written, synced,
//   renamed to COMMIT, step directory synced | latest the same way | retention | vote
#include <chrono>
#include <ctime>
#include <optional>
#include <thread>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checksum.h"
#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/retention.h"
#include "checkpoint/step_directory.h"
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

// What a layout was made for: everything of the regions but the memory.
bool SameStructure(const std::vector<StateRegion>& a, const std::vector<StateRegion>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    // A region without memory was not checked to be empty.
    if (a[i].group != b[i].group || a[i].tensor != b[i].tensor || a[i].dtype != b[i].dtype ||
        a[i].global_shape != b[i].global_shape || a[i].flat_begin != b[i].flat_begin ||
        a[i].flat_end != b[i].flat_end || (a[i].data == nullptr) != (b[i].data == nullptr)) {
      return false;
    }
  }
  return true;
}

class SynchronousWriter : public CheckpointWriter {
 public:
  SynchronousWriter(FileSystem& files, CheckpointOptions options, Transport& transport,
                    int64_t generation)
      : files_(files),
        options_(std::move(options)),
        transport_(transport),
        generation_(generation) {}

  int64_t generation() const override { return generation_; }

  absl::StatusOr<SaveReport> Save(int64_t step, const std::vector<StateRegion>& regions,
                                  const std::string& metadata) override {
    const auto start = std::chrono::steady_clock::now();
    ++attempt_;
    const StepName name{step, generation_};
    const std::string directory = JoinPath(options_.directory, StepDirectoryName(name));
    // The metadata's hash is part of the tag: ranks that captured different values find out before
    // anything is written.
    const std::string tag =
        "generation " + std::to_string(generation_) + " step " + std::to_string(step) +
        " attempt " + std::to_string(attempt_) + " metadata " +
        Hex64(ExtendCrc64(0, metadata.data(), static_cast<int64_t>(metadata.size())));
    const std::string context = "checkpoint of step " + std::to_string(step) + " not saved: ";

    absl::Status mine = Prepare(step, regions, metadata);
    if (mine.ok() && transport_.rank() == 0) mine = MakeStepDirectory(directory);
    absl::StatusOr<std::vector<std::string>> votes = Vote(transport_, tag + " prepare", mine);
    if (!votes.ok()) return Fail(context, votes.status(), directory);

    absl::StatusOr<std::string> contribution = WriteOwnFile(directory, regions);
    votes = Vote(transport_, tag + " write", contribution.status(),
                 contribution.ok() ? *contribution : "");
    if (!votes.ok()) return Fail(context, votes.status(), directory);

    std::vector<std::string> warnings;
    if (transport_.rank() == 0) {
      mine = Commit(name, directory, *votes, metadata);
      if (mine.ok()) warnings = FinishCommitted(name);
    }
    std::string lines;
    for (const std::string& warning : warnings) lines += warning + "\n";
    votes = Vote(transport_, tag + " commit", mine, lines);
    if (!votes.ok()) return Fail(context, votes.status(), directory);

    SaveReport report;
    report.directory = directory;
    report.bytes = layout_->bytes;
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (size_t begin = 0; begin < votes->front().size();) {
      const size_t end = votes->front().find('\n', begin);
      report.warnings.push_back(votes->front().substr(begin, end - begin));
      begin = end + 1;
    }
    return report;
  }

 private:
  // This rank's part of a save that touches no file: arguments, and the layout where it is not the
  // last save's.
  absl::Status Prepare(int64_t step, const std::vector<StateRegion>& regions,
                       const std::string& metadata) {
    if (step < 0) {
      return absl::InvalidArgumentError("step " + std::to_string(step) + " is negative");
    }
    if (absl::Status status = CheckJsonObject(metadata, "the checkpoint's metadata");
        !status.ok()) {
      return status;
    }
    if (layout_ && SameStructure(regions, layout_regions_)) return absl::OkStatus();
    absl::StatusOr<RankFileLayout> layout = BuildRankFileLayout(
        {options_.run_id, generation_, transport_.rank(), transport_.size()}, regions);
    if (!layout.ok()) return layout.status();
    layout_ = *std::move(layout);
    layout_regions_ = regions;
    return absl::OkStatus();
  }

  // Rank 0.
  absl::Status MakeStepDirectory(const std::string& directory) {
    made_directory_ = false;
    if (absl::Status status = CheckFence(files_, options_.directory, generation_); !status.ok()) {
      return status;
    }
    absl::Status made = files_.CreateDirectory(directory);
    if (absl::IsAlreadyExists(made)) {
      // A save of this very attempt that failed. Its files are removed, never written to again.
      absl::StatusOr<std::vector<std::string>> names = files_.List(directory);
      if (!names.ok()) return names.status();
      for (const std::string& name : *names) {
        if (name == kCommitName) return absl::AlreadyExistsError(directory + " is committed");
      }
      made = DeleteStepDirectory(files_, directory);
      if (made.ok()) made = files_.CreateDirectory(directory);
    }
    if (!made.ok()) return made;
    made_directory_ = true;
    return files_.SyncDirectory(options_.directory);
  }

  // Every rank. Returns its serialized part of the manifest.
  absl::StatusOr<std::string> WriteOwnFile(const std::string& directory,
                                           const std::vector<StateRegion>& regions) {
    if (absl::Status status = AwaitVisible(files_, directory, 0); !status.ok()) return status;
    RankContribution contribution;
    contribution.file.name = RankFileName(transport_.rank());
    contribution.file.bytes = layout_->bytes;
    absl::StatusOr<std::unique_ptr<File>> file =
        files_.Create(JoinPath(directory, contribution.file.name));
    if (!file.ok()) return file.status();
    absl::StatusOr<RankFileSums> sums = WriteRankFile(*layout_, regions, **file);
    file->reset();
    if (!sums.ok()) return sums.status();
    if (absl::Status status = files_.SyncDirectory(directory); !status.ok()) return status;

    contribution.file.chunk_crc32c = std::move(sums->chunk_crc32c);
    for (size_t i = 0; i < regions.size(); ++i) {
      const StateRegion& region = regions[i];
      contribution.tensors.push_back(
          {region.group, region.tensor, region.dtype, region.global_shape, sums->region_crc64[i]});
      if (layout_->offsets[i] >= 0) {
        contribution.file.regions.push_back(
            {static_cast<int>(i), region.flat_begin, region.flat_end, layout_->offsets[i]});
      }
    }
    return SerializeContribution(contribution);
  }

  // Rank 0, after every rank's file is durable: manifest and commit record.
  absl::Status Commit(const StepName& name, const std::string& directory,
                      const std::vector<std::string>& contributions, const std::string& metadata) {
    std::vector<RankContribution> parts;
    for (size_t rank = 0; rank < contributions.size(); ++rank) {
      absl::StatusOr<RankContribution> part = ParseContribution(contributions[rank]);
      if (!part.ok()) return part.status();
      // A node with a file system of its own may have a directory of the same name.
      if (absl::Status status =
              AwaitVisible(files_, JoinPath(directory, part->file.name), static_cast<int>(rank));
          !status.ok()) {
        return status;
      }
      parts.push_back(*std::move(part));
    }
    Manifest manifest;
    manifest.run_id = options_.run_id;
    manifest.generation = generation_;
    manifest.step = name.step;
    manifest.chunk_bytes = kChunkBytes;
    manifest.run = metadata;
    if (absl::Status status = JoinContributions(parts, manifest); !status.ok()) return status;
    absl::StatusOr<std::string> text = SerializeManifest(manifest);
    if (!text.ok()) return text.status();
    if (absl::Status status = CreateDurably(files_, directory, kManifestName, *text);
        !status.ok()) {
      return status;
    }

    CommitRecord record;
    record.run_id = options_.run_id;
    record.generation = generation_;
    record.step = name.step;
    record.root_hash = ExtendCrc64(0, text->data(), static_cast<int64_t>(text->size()));
    record.time = UtcNow();
    if (absl::Status status = CheckFence(files_, options_.directory, generation_); !status.ok()) {
      return status;
    }
    return ReplaceDurably(files_, directory, kCommitName, SerializeCommit(record));
  }

  // Rank 0, after the commit: what may fail without taking the checkpoint back.
  std::vector<std::string> FinishCommitted(const StepName& name) {
    std::vector<std::string> warnings;
    if (absl::Status status =
            ReplaceDurably(files_, options_.directory, kLatestName, StepDirectoryName(name) + "\n");
        !status.ok()) {
      warnings.push_back(std::string(status.message()));
    }
    for (std::string& problem : ApplyRetention(files_, options_, name)) {
      warnings.push_back(std::move(problem));
    }
    return warnings;
  }

  // The partial directory is removed where that can be done: a full disk needs the space. Not if a
  // peer is gone, because the others may still be writing.
  absl::Status Fail(const std::string& context, const absl::Status& why,
                    const std::string& directory) {
    if (transport_.rank() == 0 && made_directory_ && !absl::IsUnavailable(why)) {
      if (DeleteStepDirectory(files_, directory).ok()) {
        files_.SyncDirectory(options_.directory).IgnoreError();
      }
      made_directory_ = false;
    }
    return absl::Status(why.code(), context + std::string(why.message()));
  }

  FileSystem& files_;
  const CheckpointOptions options_;
  Transport& transport_;
  const int64_t generation_;
  int64_t attempt_ = 0;
  bool made_directory_ = false;           // rank 0: by the running save
  std::optional<RankFileLayout> layout_;  // of the last save, for layout_regions_
  std::vector<StateRegion> layout_regions_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Open(FileSystem& files,
                                                                         CheckpointOptions options,
                                                                         Transport& transport) {
  const std::string context = "checkpoint directory " + options.directory + ": ";
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
    votes = Vote(transport, "open generation " + std::to_string(generation), mine);
  }
  if (!votes.ok()) {
    return absl::Status(votes.status().code(), context + std::string(votes.status().message()));
  }
  return std::make_unique<SynchronousWriter>(files, std::move(options), transport, generation);
}

}  // namespace longspan
