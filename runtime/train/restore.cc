#include "runtime/train/restore.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/storage.h"
#include "runtime/train/agreement.h"
#include "runtime/train/run_schedule.h"

namespace longspan {
namespace {

// Rank 0 looks, so that all ranks try the same directories in the same order.
absl::StatusOr<std::vector<std::string>> Candidates(const std::string& resume,
                                                    const RunFolder& folder, Transport& transport,
                                                    RunLog& log) {
  std::vector<std::string> directories;
  absl::Status mine;
  if (transport.rank() == 0) {
    if (resume != "auto") {
      directories.push_back(resume);
    } else if (PosixFileSystem().Exists(folder.checkpoints())) {
      std::vector<std::string> skipped;
      absl::StatusOr<std::vector<CheckpointInfo>> found =
          ListCheckpoints(PosixFileSystem(), folder.checkpoints(), &skipped);
      mine = found.status();
      if (found.ok()) {
        for (const CheckpointInfo& info : *found) directories.push_back(info.directory);
      }
      for (const std::string& line : skipped) log.Info("not a committed checkpoint: " + line);
    }
  }
  if (absl::Status status = Agree(transport, mine); !status.ok()) return status;
  absl::StatusOr<std::string> joined =
      transport.BroadcastBytes(absl::StrJoin(directories, "\n"), /*root=*/0);
  if (!joined.ok()) return joined.status();
  return std::vector<std::string>(absl::StrSplit(*joined, '\n', absl::SkipEmpty()));
}

absl::Status RestoreFrom(const std::string& directory, TrainingState& state,
                         const RunConfig& values, const std::vector<ConfigEntry>& config,
                         RunState& run, std::vector<std::string>* changes) {
  absl::StatusOr<CheckpointInfo> info = ReadCheckpointInfo(PosixFileSystem(), directory);
  if (!info.ok()) return info.status();
  absl::StatusOr<RunState> saved = RunStateFromJson(info->metadata);
  if (!saved.ok()) return saved.status();
  absl::StatusOr<std::vector<std::string>> changed =
      CompareForResume(*saved, config, run.data_fingerprint);
  if (!changed.ok()) return changed.status();
  std::string schedule_change;
  absl::StatusOr<std::string> schedule = ScheduleOnResume(*saved, values, config, &schedule_change);
  if (!schedule.ok()) return schedule.status();
  if (!schedule_change.empty()) changed->push_back(schedule_change);
  // With threads of its own no engine for writes is wanted.
  absl::StatusOr<std::unique_ptr<FileSystem>> storage =
      OpenStorage({.engine = StorageOptions::Engine::kThreads});
  if (!storage.ok()) return storage.status();
  if (absl::Status status = RestoreRegions(**storage, *info, state.Regions()); !status.ok())
    return status;
  *changes = *std::move(changed);
  run.step = saved->step;
  run.updates = saved->updates;
  run.tokens = saved->tokens;
  run.first_loss = saved->first_loss;
  run.cursor = saved->cursor;
  run.schedule = *std::move(schedule);
  if (values.planner.cost == "refit") run.costs = saved->costs;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<bool> RestoreRun(const std::string& resume, const RunFolder& folder,
                                const RunConfig& values, const std::vector<ConfigEntry>& config,
                                TrainingState& state, Transport& transport, RunLog& log,
                                RunState& run) {
  absl::StatusOr<std::vector<std::string>> directories = Candidates(resume, folder, transport, log);
  if (!directories.ok()) return directories.status();
  for (const std::string& directory : *directories) {
    RunState restored = run;
    std::vector<std::string> changes;
    const absl::Status status =
        Agree(transport, RestoreFrom(directory, state, values, config, restored, &changes));
    if (status.ok()) {
      log.Info(absl::StrCat("resumed from ", directory, " (step ", restored.step, ")"));
      for (const std::string& line : changes) log.Info("changed since then: " + line);
      run = std::move(restored);
      return true;
    }
    if (resume != "auto" || status.code() != absl::StatusCode::kDataLoss) return status;
    log.Warn(absl::StrCat("cannot use ", directory,
                          ", trying an older one: ", std::string(status.message())));
  }
  if (!directories->empty()) {
    return MarkAgreed(absl::DataLossError(
        absl::StrCat("no checkpoint in ", folder.checkpoints(), " can be read; see the warnings")));
  }
  log.Info(absl::StrCat("no committed checkpoint in ", folder.checkpoints(), ": starting fresh"));
  return false;
}

}  // namespace longspan
