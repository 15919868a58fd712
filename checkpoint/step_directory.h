// Names under the checkpoint directory, and reading what one of them holds.
//
//   generation-0003     step-00000200.g0003/{rank-00000.h5, manifest.json, COMMIT}     latest
#ifndef LONGSPAN_CHECKPOINT_STEP_DIRECTORY_H_
#define LONGSPAN_CHECKPOINT_STEP_DIRECTORY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/file_system.h"
#include "checkpoint/manifest.h"

namespace longspan {

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr char kCommitName[] = "COMMIT";
inline constexpr char kLatestName[] = "latest";

struct StepName {
  int64_t step = 0;
  int64_t generation = 0;
};

// "step-00000200.g0003"; more digits where the numbers need them.
std::string StepDirectoryName(const StepName& name);
std::optional<StepName> ParseStepDirectoryName(const std::string& name);
// "generation-0003".
std::string GenerationFileName(int64_t generation);
std::optional<int64_t> ParseGenerationFileName(const std::string& name);
// "rank-00000.h5".
std::string RankFileName(int rank);
std::optional<int> ParseRankFileName(const std::string& name);
// "0003", as it stands in names; and digits alone, as many as an int64_t surely holds.
std::string PaddedGeneration(int64_t generation);
std::optional<int64_t> ParseNumber(const std::string& digits);

// directory + "/" + name, whether or not the directory ends in a slash.
std::string JoinPath(const std::string& directory, const std::string& name);
// The directory that holds `path`; "." for a bare name.
std::string ParentPath(const std::string& path);

// The highest generation that any name in a listing of the checkpoint directory carries, 0 if none.
int64_t HighestGeneration(const std::vector<std::string>& names);

// Creates `name`, which must not exist, in `directory` durably: written, synced, directory synced.
absl::Status CreateDurably(FileSystem& files, const std::string& directory, const std::string& name,
                           const std::string& content);
// Makes `name` in `directory` hold `content`, durably and at once: written under a temporary name,
// synced, renamed, directory synced. A temporary file that a crash left is removed first.
absl::Status ReplaceDurably(FileSystem& files, const std::string& directory,
                            const std::string& name, const std::string& content);

// Removes the commit record of a step directory, durably, so that it stops to count at once. OK if
// it has none.
absl::Status WithdrawCommit(FileSystem& files, const std::string& directory);
// Deletes a step directory: first COMMIT, durably; then the rest. OK if it, or a file in it, is
// gone.
absl::Status DeleteStepDirectory(FileSystem& files, const std::string& directory);

// What a committed directory must hold of the files that its manifest names: a node's holds some.
enum class Holds { kAllFiles, kSomeFiles };

// The manifest of a directory with a valid commit record. DataLoss, naming the file, if manifest,
// commit record and directory listing do not fit each other; FailedPrecondition for a newer
// version; NotFound without a commit record. `record`, if not null, gets the commit record.
absl::StatusOr<Manifest> ReadCommittedManifest(FileSystem& files, const std::string& directory,
                                               CommitRecord* record = nullptr,
                                               Holds holds = Holds::kAllFiles);

// Names of files that the manifest names and the directory lacks.
absl::StatusOr<std::vector<std::string>> FilesElsewhere(FileSystem& files, const Manifest& manifest,
                                                        const std::string& directory);

// What callers are told of it; without the time of the commit. And of its tensors.
CheckpointInfo InfoOf(const Manifest& manifest, const std::string& directory);
std::vector<CheckpointTensor> TensorsOf(const Manifest& manifest);

// ListCheckpoints, of directories that hold all of their files or some.
absl::StatusOr<std::vector<CheckpointInfo>> ListCommitted(FileSystem& files,
                                                          const std::string& directory, Holds holds,
                                                          std::vector<std::string>* skipped);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_STEP_DIRECTORY_H_
