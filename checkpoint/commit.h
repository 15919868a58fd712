// The steps of a save that ranks take one by one or together, in the order of FORMAT.md: what the
// synchronous and the lazy writer have in common.
//
//   mkdir step, sync parent | vote | rank files created, written, synced, step directory synced |
//   vote | manifest.json written, synced, step directory synced | COMMIT.tmp written, synced,
//   renamed to COMMIT, step directory synced | latest the same way | retention | vote
#ifndef LONGSPAN_CHECKPOINT_COMMIT_H_
#define LONGSPAN_CHECKPOINT_COMMIT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/retention.h"
#include "checkpoint/step_directory.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Collective. Creates the checkpoint directory if need be and claims the next generation in it.
// Fails on every rank if it fails on one.
absl::StatusOr<int64_t> OpenGeneration(FileSystem& files, const CheckpointOptions& options,
                                       Transport& transport);

// Rank 0. AlreadyExists if the step is committed; what a failed save of it left is removed.
absl::Status MakeStepDirectory(FileSystem& files, const CheckpointOptions& options,
                               const StepName& name);

// Every rank, when rank 0 has made the step directory `directory`: a file whose space is reserved.
// A spare one where there is one (spare_files.h), else a new one.
absl::StatusOr<std::unique_ptr<File>> CreateRankFile(FileSystem& files,
                                                     const std::string& directory, int rank,
                                                     int64_t bytes);

// Every rank, when its file is synced and closed: makes the file's name durable and returns this
// rank's serialized part of the manifest.
absl::StatusOr<std::string> FinishRankFile(FileSystem& files, const std::string& directory,
                                           int rank, const RankFileLayout& layout,
                                           const std::vector<StateRegion>& regions,
                                           RankFileSums sums);

// What makes a step count, as texts.
struct StepRecords {
  std::string manifest, commit;
  std::vector<std::string> files;  // names, by rank
  uint64_t state_hash = 0;
};
// From the parts of all ranks, by rank. DataLoss if the state hash is `refused_hash` (not null).
absl::StatusOr<StepRecords> JoinStep(const CheckpointOptions& options, const StepName& name,
                                     const std::vector<std::string>& contributions,
                                     const std::string& metadata, const uint64_t* refused_hash);

// Rank 0, after every rank's file is durable: manifest and commit record. The state hash, which
// must not be `refused_hash` (if not null): DataLoss then.
absl::StatusOr<uint64_t> CommitStep(FileSystem& files, const CheckpointOptions& options,
                                    const StepName& name,
                                    const std::vector<std::string>& contributions,
                                    const std::string& metadata, const uint64_t* refused_hash);

// Rank 0, after the commit: what may fail without taking the checkpoint back. Lines for what went
// wrong. `under_way` as in ApplyRetention.
std::vector<std::string> FinishCommitted(FileSystem& files, const CheckpointOptions& options,
                                         const StepName& name, const UnderWay& under_way);

// Rank 0, after a failure of every rank's knowledge: removes the step directory where that can be
// done, because a full disk needs the space.
void RemoveFailedStep(FileSystem& files, const CheckpointOptions& options, const StepName& name);

// Text of (generation, step, attempt), which tags the votes of a save.
std::string SaveTag(const StepName& name, int64_t attempt, const std::string& metadata);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_COMMIT_H_
