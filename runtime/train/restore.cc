#include "runtime/train/restore.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/storage.h"
#include "checkpoint/tiers.h"
#include "runtime/train/agreement.h"
#include "runtime/train/run_schedule.h"

namespace longspan {
namespace {

// What to try, in this order; the same on all ranks.
absl::StatusOr<std::vector<FoundCheckpoint>> Candidates(FileSystem& files,
                                                        const std::string& resume,
                                                        const RunFolder& folder,
                                                        const std::vector<int>& nodes,
                                                        Transport& transport, RunLog& log) {
  if (resume != "auto") {
    absl::StatusOr<CheckpointInfo> info = ReadCheckpointInfo(files, resume);
    if (absl::Status status = Agree(transport, info.status()); !status.ok()) return status;
    FoundCheckpoint found;
    found.step = info->step;
    found.generation = info->generation;
    found.directory = resume;
    return std::vector<FoundCheckpoint>{found};
  }
  absl::StatusOr<std::vector<TierDirectory>> tiers = ReadTiers(files, folder.checkpoints());
  if (absl::Status status = Agree(transport, tiers.status()); !status.ok()) return status;
  std::vector<std::string> skipped;
  absl::StatusOr<std::vector<FoundCheckpoint>> found =
      FindCheckpoints(files, folder.checkpoints(), *tiers, nodes, transport, &skipped);
  for (const std::string& line : skipped) log.Info("not a committed checkpoint: " + line);
  if (absl::Status status = Agree(transport, found.status()); !status.ok()) return status;
  return found;
}

// Collective.
absl::Status RestoreFrom(FileSystem& files, const FoundCheckpoint& found,
                         const std::vector<int>& nodes, Transport& transport, TrainingState& state,
                         const RunConfig& values, const std::vector<ConfigEntry>& config,
                         RunState& run, std::vector<std::string>* changes,
                         std::vector<std::string>* notes) {
  absl::StatusOr<std::unique_ptr<TieredRestore>> restore =
      TieredRestore::Open(files, found, nodes, transport);
  if (!restore.ok()) return restore.status();
  const CheckpointInfo* info = &(*restore)->info();
  absl::StatusOr<RunState> saved = RunStateFromJson(info->metadata);
  if (!saved.ok()) return saved.status();
  absl::StatusOr<std::vector<std::string>> changed =
      CompareForResume(*saved, config, run.data_fingerprint);
  if (!changed.ok()) return changed.status();
  std::string schedule_change;
  absl::StatusOr<std::string> schedule = ScheduleOnResume(*saved, values, config, &schedule_change);
  if (!schedule.ok()) return schedule.status();
  if (!schedule_change.empty()) changed->push_back(schedule_change);
  const absl::Status read = state.Restore(
      [&](const std::vector<StateRegion>& regions) { return (*restore)->Restore(regions, notes); });
  if (!read.ok()) return read;
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
  // Reads past the page cache; with threads of its own no engine for writes is wanted.
  absl::StatusOr<std::unique_ptr<FileSystem>> files =
      OpenStorage({.engine = StorageOptions::Engine::kThreads});
  if (absl::Status status = Agree(transport, files.status()); !status.ok()) return status;
  absl::StatusOr<std::vector<int>> nodes = NodesByHost(transport);
  if (!nodes.ok()) return nodes.status();
  absl::StatusOr<std::vector<FoundCheckpoint>> candidates =
      Candidates(**files, resume, folder, *nodes, transport, log);
  if (!candidates.ok()) return candidates.status();
  for (const FoundCheckpoint& found : *candidates) {
    RunState restored = run;
    std::vector<std::string> changes, notes;
    const absl::Status status =
        Agree(transport, RestoreFrom(**files, found, *nodes, transport, state, values, config,
                                     restored, &changes, &notes));
    for (const std::string& note : notes) log.Warn(note);
    if (status.ok()) {
      log.Info(absl::StrCat("resumed from ", found.where(), " (step ", restored.step, ")"));
      for (const std::string& line : changes) log.Info("changed since then: " + line);
      run = std::move(restored);
      return true;
    }
    if (resume != "auto" || status.code() != absl::StatusCode::kDataLoss) return status;
    log.Warn(absl::StrCat("cannot use ", found.where(),
                          ", trying an older one: ", std::string(status.message())));
  }
  if (!candidates->empty()) {
    return MarkAgreed(absl::DataLossError(
        absl::StrCat("no checkpoint in ", folder.checkpoints(), " can be read; see the warnings")));
  }
  log.Info(absl::StrCat("no committed checkpoint in ", folder.checkpoints(), ": starting fresh"));
  return false;
}

}  // namespace longspan
