#include "checkpoint/retention.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "checkpoint/spare_files.h"

namespace longspan {
namespace {

std::vector<std::string> Apply(FileSystem& files, const CheckpointOptions& options, Holds holds,
                               const StepName& newest, const UnderWay& under_way) {
  std::vector<std::string> problems;
  const std::string& directory = options.directory;
  absl::StatusOr<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) return {"old checkpoints stay: " + std::string(names.status().message())};
  if (HighestGeneration(*names) > newest.generation) {
    return {"old checkpoints stay: another attempt of this run has started in " + directory};
  }
  const std::string newest_path = JoinPath(directory, StepDirectoryName(newest));
  std::vector<std::string> skipped;
  absl::StatusOr<std::vector<CheckpointInfo>> committed =
      ListCommitted(files, directory, holds, &skipped);
  if (!committed.ok()) {
    return {"old checkpoints stay: " + std::string(committed.status().message())};
  }
  if (committed->empty() || committed->front().directory != newest_path) {
    problems.push_back("old checkpoints stay, the new one does not read back:");
    problems.insert(problems.end(), skipped.begin(), skipped.end());
    return problems;
  }

  std::vector<std::string> doomed, retired;
  std::set<int64_t> kept_for_good;
  for (size_t i = 0; i < committed->size(); ++i) {
    const CheckpointInfo& info = (*committed)[i];  // newest first
    const bool marked = options.keep_every > 0 && info.step % options.keep_every == 0 &&
                        kept_for_good.insert(info.step).second;
    if (i >= static_cast<size_t>(options.keep_last) && !marked) retired.push_back(info.directory);
  }
  for (const std::string& name : *names) {
    const std::string path = JoinPath(directory, name);
    const std::optional<int64_t> spare = ParseSpareDirectoryName(name);
    if (spare && *spare < newest.generation) {
      if (absl::Status status = RemoveSpare(files, directory, *spare); !status.ok())
        problems.push_back(path + " is not removed: " + std::string(status.message()));
    }
    if (!ParseStepDirectoryName(name)) continue;
    // Asked after the listing: a directory that was made since is not in it.
    if (under_way && under_way(path)) continue;
    // Listed, not probed: an error must not look like a missing commit record.
    absl::StatusOr<std::vector<std::string>> content = files.List(path);
    if (!content.ok()) {
      problems.push_back(std::string(content.status().message()));
    } else if (!std::binary_search(content->begin(), content->end(), kCommitName)) {
      doomed.push_back(path);
    } else if (std::none_of(committed->begin(), committed->end(),
                            [&](const CheckpointInfo& info) { return info.directory == path; })) {
      problems.push_back("committed, but unreadable, and kept: " + path);
      for (const std::string& line : skipped) {
        if (line.find(path) != std::string::npos) problems.back() += ": " + line;
      }
    }
  }
  // All but the first: one is enough for the next save.
  if (!retired.empty()) doomed.insert(doomed.end(), retired.begin() + 1, retired.end());
  bool deleted = false;
  const auto note = [&](const std::string& path, const absl::Status& status) {
    if (status.ok()) {
      deleted = true;
    } else {
      problems.push_back("old checkpoint " + path +
                         " is not removed: " + std::string(status.message()));
    }
  };
  for (const std::string& path : doomed) note(path, DeleteStepDirectory(files, path));
  if (!retired.empty()) {
    note(retired.front(), RetireStepDirectory(files, retired.front(), newest.generation));
  }
  if (deleted) {
    if (absl::Status status = files.SyncDirectory(directory); !status.ok()) {
      problems.push_back(std::string(status.message()));
    }
  }
  return problems;
}

}  // namespace

std::vector<std::string> ApplyRetention(FileSystem& files, const CheckpointOptions& options,
                                        const StepName& newest, const UnderWay& under_way) {
  return Apply(files, options, Holds::kAllFiles, newest, under_way);
}

std::vector<std::string> ApplyNodeRetention(FileSystem& files, const CheckpointOptions& options,
                                            const StepName& newest) {
  const auto not_older = [&](const std::string& path) {
    const std::optional<StepName> name = ParseStepDirectoryName(path.substr(path.rfind('/') + 1));
    return name &&
           std::pair(name->generation, name->step) >= std::pair(newest.generation, newest.step);
  };
  return Apply(files, options, Holds::kSomeFiles, newest, not_older);
}

}  // namespace longspan
