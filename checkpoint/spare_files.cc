#include "checkpoint/spare_files.h"

#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/step_directory.h"

namespace longspan {
namespace {

constexpr char kSpare[] = "spare.g";

}  // namespace

std::string SpareDirectoryName(int64_t generation) { return kSpare + PaddedGeneration(generation); }

std::optional<int64_t> ParseSpareDirectoryName(const std::string& name) {
  if (name.rfind(kSpare, 0) != 0) return std::nullopt;
  const std::optional<int64_t> generation = ParseNumber(name.substr(sizeof(kSpare) - 1));
  if (!generation || SpareDirectoryName(*generation) != name) return std::nullopt;
  return generation;
}

std::unique_ptr<File> TakeSpare(FileSystem& files, const std::string& directory, int rank,
                                int64_t bytes) {
  const std::optional<StepName> step =
      ParseStepDirectoryName(directory.substr(directory.rfind('/') + 1));
  if (!step) return nullptr;
  const std::string name = RankFileName(rank);
  const std::string spare =
      JoinPath(JoinPath(ParentPath(directory), SpareDirectoryName(step->generation)), name);
  if (!files.Exists(spare)) return nullptr;
  const std::string path = JoinPath(directory, name);
  absl::StatusOr<std::unique_ptr<File>> file = files.Reuse(spare, path);
  if (file.ok()) {
    const absl::StatusOr<int64_t> size = (*file)->Size();
    if (size.ok() && *size == bytes) return *std::move(file);
    file->reset();
  }
  // Its space is wanted by the new file.
  files.Remove(file.ok() ? path : spare).IgnoreError();
  return nullptr;
}

absl::Status RetireStepDirectory(FileSystem& files, const std::string& directory,
                                 int64_t generation) {
  const std::string parent = ParentPath(directory);
  if (!files.CanReuse(parent)) return DeleteStepDirectory(files, directory);
  if (absl::Status status = WithdrawCommit(files, directory); !status.ok()) return status;
  if (absl::Status status = RemoveSpare(files, parent, generation); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (ParseRankFileName(name)) continue;
    if (absl::Status status = files.Remove(JoinPath(directory, name)); !status.ok()) return status;
  }
  return files.Rename(directory, JoinPath(parent, SpareDirectoryName(generation)));
}

absl::Status RemoveSpare(FileSystem& files, const std::string& directory, int64_t generation) {
  const std::string spare = JoinPath(directory, SpareDirectoryName(generation));
  return files.Exists(spare) ? DeleteStepDirectory(files, spare) : absl::OkStatus();
}

}  // namespace longspan
