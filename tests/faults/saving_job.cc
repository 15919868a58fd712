#include "saving_job.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "../checkpoint/sharded_state.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "checkpoint/lazy_writer.h"

namespace longspan {
namespace {

absl::Status ReadBack(FileSystem& files, const std::string& directory, const SavingJob& job,
                      Transport& transport, JobStart& start) {
  absl::StatusOr<CheckpointInfo> info = ReadCheckpointInfo(files, directory);
  if (!info.ok()) return info.status();
  ShardedState state(transport.rank(), transport.size(), 0, job.scale);
  state.Clear();
  if (absl::Status status = RestoreRegions(files, *info, state.regions()); !status.ok()) {
    return status;
  }
  start.step = info->step;
  start.ranks = info->ranks;
  // Not DataLoss, which would be fallen back from: this must never happen.
  const std::string difference = state.DifferenceFrom(info->step);
  return difference.empty() ? absl::OkStatus()
                            : absl::InternalError("RESTORED WRONG " + difference);
}

// The failure of the lowest rank that has one, on all ranks.
absl::Status Agree(Transport& transport, const absl::Status& mine) {
  absl::StatusOr<std::vector<std::string>> all = transport.AllGatherBytes(
      absl::StrCat(std::string(1, static_cast<char>(mine.code())), mine.message()));
  if (!all.ok()) return all.status();
  for (const std::string& each : *all) {
    const auto code = static_cast<absl::StatusCode>(each[0]);
    if (code != absl::StatusCode::kOk) return absl::Status(code, each.substr(1));
  }
  return absl::OkStatus();
}

absl::StatusOr<JobStart> Resume(const SavingJob& job, FileSystem& files, Transport& transport) {
  std::vector<std::string> directories;
  absl::Status mine;
  if (transport.rank() == 0) {
    absl::StatusOr<std::vector<CheckpointInfo>> found = ListCheckpoints(files, job.directory);
    mine = found.status();
    if (found.ok()) {
      for (const CheckpointInfo& info : *found) directories.push_back(info.directory);
    }
  }
  if (absl::Status status = Agree(transport, mine); !status.ok()) return status;
  absl::StatusOr<std::string> joined =
      transport.BroadcastBytes(absl::StrJoin(directories, "\n"), 0);
  if (!joined.ok()) return joined.status();
  JobStart start;
  absl::Status last;
  for (const auto directory : absl::StrSplit(*joined, '\n', absl::SkipEmpty())) {
    last = Agree(transport, ReadBack(files, std::string(directory), job, transport, start));
    if (last.ok()) return start;
    if (!absl::IsDataLoss(last)) return last;
    ++start.older_taken;
  }
  if (!last.ok()) return last;
  return JobStart();
}

void Update(const std::vector<StateRegion>& regions, const ShardedState& next, size_t region) {
  const StateRegion& from = next.regions()[region];
  const int64_t bytes = (from.flat_end - from.flat_begin) * SizeOf(from.dtype);
  if (bytes > 0) std::memcpy(regions[region].data, from.data, static_cast<size_t>(bytes));
}

absl::Status SaveLazily(const SavingJob& job, const CheckpointOptions& options, int64_t first,
                        FileSystem& files, MemoryTable& memory, Transport& transport,
                        const JobCallbacks& callbacks) {
  const ShardedState state(transport.rank(), transport.size(), first, job.scale);
  std::vector<StateRegion> regions = state.regions();
  for (size_t i = 0; i < regions.size(); ++i) regions[i].gate = static_cast<int>(i);
  LazyOptions lazy;
  lazy.timeout = job.vote_timeout;
  lazy.in_flight = job.in_flight;
  lazy.pool_bytes = job.pool_bytes;
  auto writer = LazyCheckpointWriter::Open(files, options, lazy, regions, memory, transport);
  if (!writer.ok()) return writer.status();
  absl::Status gone;
  const auto collect = [&] {
    for (const FinishedSave& save : (*writer)->TakeFinished()) {
      callbacks.saved(save.step, save.status, save.report);
      if (absl::IsUnavailable(save.status)) gone = save.status;
    }
  };
  std::vector<Event> gates(regions.size());
  for (int64_t step = first + 1; step <= first + job.saves && gone.ok(); ++step) {
    const ShardedState next(transport.rank(), transport.size(), step, job.scale);
    for (size_t i = 0; i < regions.size(); ++i) {
      if (absl::Status status = gates[i].Wait(); !status.ok()) return status;
      Update(regions, next, i);
    }
    gates = (*writer)->Snapshot({step, [step] { return StateMetadata(step); }, Event(), true});
    collect();
  }
  (*writer)->Drain();
  collect();
  return gone.ok() ? transport.Barrier() : gone;
}

absl::Status SaveSynchronously(const SavingJob& job, const CheckpointOptions& options,
                               int64_t first, FileSystem& files, Transport& transport,
                               const JobCallbacks& callbacks) {
  auto writer = CheckpointWriter::Open(files, options, transport);
  if (!writer.ok()) return writer.status();
  for (int64_t step = first + 1; step <= first + job.saves; ++step) {
    const ShardedState state(transport.rank(), transport.size(), step, job.scale);
    auto report = (*writer)->Save(step, state.regions(), StateMetadata(step));
    callbacks.saved(step, report.status(), report.ok() ? *report : SaveReport());
    if (absl::IsUnavailable(report.status())) return report.status();
  }
  return transport.Barrier();
}

void CheckOne(FileSystem& files, const CheckpointInfo& info, int ranks, int64_t scale,
              std::string& problem) {
  if (absl::Status status = VerifyCheckpoint(files, info); !status.ok()) {
    absl::StrAppend(&problem, status.ToString(), "\n");
  }
  if (info.metadata != StateMetadata(info.step)) {
    absl::StrAppend(&problem, info.directory, ": metadata ", info.metadata, "\n");
  }
  for (const int count : {1, ranks}) {
    for (int rank = 0; rank < count; ++rank) {
      ShardedState state(rank, count, 0, scale);
      state.Clear();
      const absl::Status status = RestoreRegions(files, info, state.regions());
      const std::string wrong = status.ok() ? state.DifferenceFrom(info.step) : status.ToString();
      if (wrong.empty()) continue;
      absl::StrAppend(&problem, info.directory, " on rank ", rank, " of ", count, ": ", wrong,
                      "\n");
    }
  }
}

}  // namespace

absl::Status RunSavingJob(const SavingJob& job, FileSystem& files, MemoryTable& memory,
                          Transport& transport, const JobCallbacks& callbacks) {
  absl::StatusOr<JobStart> start = Resume(job, files, transport);
  if (!start.ok()) return start.status();
  callbacks.started(*start);
  CheckpointOptions options;
  options.directory = job.directory;
  options.run_id = "faults";
  options.keep_last = job.keep_last;
  return job.mode == SaveMode::kLazy
             ? SaveLazily(job, options, start->step, files, memory, transport, callbacks)
             : SaveSynchronously(job, options, start->step, files, transport, callbacks);
}

int64_t CheckCheckpoints(FileSystem& files, const std::string& directory, int ranks, int64_t scale,
                         std::string& problem, const std::set<std::string>& damaged) {
  const auto found = ListCheckpoints(files, directory);
  if (!found.ok()) {
    absl::StrAppend(&problem, found.status().ToString(), "\n");
    return 0;
  }
  int64_t newest = 0;
  for (const CheckpointInfo& info : *found) {
    if (damaged.count(info.directory) > 0) continue;
    CheckOne(files, info, ranks, scale, problem);
    if (newest == 0) newest = info.step;
  }
  return newest;
}

std::vector<std::string> LeftoverSteps(FileSystem& files, const std::string& directory) {
  std::vector<std::string> leftovers;
  const auto names = files.List(directory);
  const auto found = ListCheckpoints(files, directory);
  if (!names.ok() || !found.ok()) return leftovers;
  for (const std::string& name : *names) {
    const std::string path = absl::StrCat(directory, "/", name);
    if (name.rfind("step-", 0) == 0 &&
        std::none_of(found->begin(), found->end(),
                     [&](const CheckpointInfo& info) { return info.directory == path; })) {
      leftovers.push_back(path);
    }
  }
  return leftovers;
}

}  // namespace longspan
