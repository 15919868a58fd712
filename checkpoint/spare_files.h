// Spare files: rank files of a step that retention has retired, to be written again. A disk writes
// what is allocated already in half of the time or less, and nothing has to be freed.
//
//   spare.g0003/rank-00000.h5     of one retired step, for the saves of generation 3
//
// Nothing in there counts, and no other generation uses it: whoever retires steps next removes it.
#ifndef LONGSPAN_CHECKPOINT_SPARE_FILES_H_
#define LONGSPAN_CHECKPOINT_SPARE_FILES_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "checkpoint/file_system.h"

namespace longspan {

// "spare.g0003".
std::string SpareDirectoryName(int64_t generation);
std::optional<int64_t> ParseSpareDirectoryName(const std::string& name);

// The spare file of `rank`, if there is one of `bytes` that nobody else uses, as the rank's file in
// the step directory `directory`, open and allocated; else null, and nothing is there: a new file
// can always be made. By any rank.
std::unique_ptr<File> TakeSpare(FileSystem& files, const std::string& directory, int rank,
                                int64_t bytes);

// Retires the committed step directory `directory`: its commit record goes, durably, so that it
// stops to count at once; then its rank files are the spare ones of `generation`, and what was left
// of those before is removed. Where files cannot be used again all of it is deleted. By the rank
// that applies retention.
absl::Status RetireStepDirectory(FileSystem& files, const std::string& directory,
                                 int64_t generation);

// Removes the spare files of `generation` below the checkpoint directory `directory`. OK if there
// are none.
absl::Status RemoveSpare(FileSystem& files, const std::string& directory, int64_t generation);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_SPARE_FILES_H_
