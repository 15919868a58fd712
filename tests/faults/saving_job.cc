#include "saving_job.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "../checkpoint/sharded_state.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/lazy_writer.h"
#include "parallel/transport/rank_threads.h"

namespace longspan {
namespace {

std::vector<int> NodesOf(const SavingJob& job, int ranks) {
  return job.nodes.empty() ? std::vector<int>(static_cast<size_t>(ranks), 0) : job.nodes;
}

// Collective.
absl::Status ReadBack(FileSystem& files, const FoundCheckpoint& found,
                      const std::vector<int>& nodes, int64_t scale, Transport& transport,
                      JobStart& start) {
  absl::StatusOr<std::unique_ptr<TieredRestore>> restore =
      TieredRestore::Open(files, found, nodes, transport);
  if (!restore.ok()) return restore.status();
  ShardedState state(transport.rank(), transport.size(), 0, scale);
  state.Clear();
  if (absl::Status status = (*restore)->Restore(state.regions(), &start.notes); !status.ok()) {
    return status;
  }
  const CheckpointInfo& info = (*restore)->info();
  start.step = info.step;
  start.ranks = info.ranks;
  start.from_tier = found.directory.empty();
  // Not DataLoss, which would be fallen back from: this must never happen.
  std::string wrong = state.DifferenceFrom(info.step);
  if (info.metadata != StateMetadata(info.step)) wrong += " metadata " + info.metadata;
  return wrong.empty() ? absl::OkStatus() : absl::InternalError("RESTORED WRONG " + wrong);
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
  const std::vector<int> nodes = NodesOf(job, transport.size());
  const absl::StatusOr<std::vector<FoundCheckpoint>> all = FindCheckpoints(
      files, job.directory, TiersOfNode(job, nodes[transport.rank()]), nodes, transport);
  if (!all.ok()) return all.status();
  JobStart start;
  absl::Status last;
  for (const FoundCheckpoint& found : *all) {
    last = Agree(transport, ReadBack(files, found, nodes, job.scale, transport, start));
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

// Where a lazy job saves.
struct Saver {
  std::string tier;
  int64_t every = 1;
  std::unique_ptr<LazyCheckpointWriter> writer;
  std::vector<Event> gates;
};

absl::StatusOr<std::vector<Saver>> OpenSavers(const SavingJob& job,
                                              const CheckpointOptions& options,
                                              const std::vector<StateRegion>& regions,
                                              FileSystem& files, MemoryTable& memory,
                                              Transport& transport) {
  LazyOptions lazy;
  lazy.timeout = job.vote_timeout;
  lazy.in_flight = job.in_flight;
  lazy.pool_bytes = job.pool_bytes;
  std::vector<Saver> savers;
  auto shared = LazyCheckpointWriter::Open(files, options, lazy, regions, memory, transport);
  if (!shared.ok()) return shared.status();
  const int64_t generation = (*shared)->generation();
  savers.push_back({"", job.every, *std::move(shared), std::vector<Event>(regions.size())});
  const std::vector<int> nodes = NodesOf(job, transport.size());
  const std::vector<TierDirectory> directories = TiersOfNode(job, nodes[transport.rank()]);
  for (size_t i = 0; i < job.tiers.size(); ++i) {
    const SavingJob::Tier& tier = job.tiers[i];
    TierOptions here;
    here.tier = directories[i];
    here.keep_last = tier.keep_last;
    here.partner = tier.partner;
    here.erasure = tier.erasure;
    here.nodes = nodes;
    auto writer = OpenTier(files, options, generation, here, lazy, regions, memory, transport);
    if (!writer.ok()) return writer.status();
    savers.push_back(
        {tier.name, tier.every, *std::move(writer), std::vector<Event>(regions.size())});
  }
  return savers;
}

absl::Status SaveLazily(const SavingJob& job, const CheckpointOptions& options, int64_t first,
                        FileSystem& files, MemoryTable& memory, Transport& transport,
                        const JobCallbacks& callbacks) {
  const ShardedState state(transport.rank(), transport.size(), first, job.scale);
  std::vector<StateRegion> regions = state.regions();
  for (size_t i = 0; i < regions.size(); ++i) regions[i].gate = static_cast<int>(i);
  absl::StatusOr<std::vector<Saver>> savers =
      OpenSavers(job, options, regions, files, memory, transport);
  if (!savers.ok()) return savers.status();
  absl::Status gone;
  const auto collect = [&] {
    for (Saver& saver : *savers) {
      for (const FinishedSave& save : saver.writer->TakeFinished()) {
        callbacks.saved(saver.tier, save.step, save.status, save.report);
        if (absl::IsUnavailable(save.status)) gone = save.status;
      }
    }
  };
  for (int64_t step = first + 1; step <= first + job.saves && gone.ok(); ++step) {
    const ShardedState next(transport.rank(), transport.size(), step, job.scale);
    for (size_t i = 0; i < regions.size(); ++i) {
      for (Saver& saver : *savers) {
        if (absl::Status status = saver.gates[i].Wait(); !status.ok()) return status;
      }
      Update(regions, next, i);
    }
    for (Saver& saver : *savers) {
      if (saver.every == 0 || step % saver.every != 0) continue;
      saver.gates =
          saver.writer->Snapshot({step, [step] { return StateMetadata(step); }, Event(), true});
    }
    collect();
  }
  for (Saver& saver : *savers) saver.writer->Drain();
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
    callbacks.saved("", step, report.status(), report.ok() ? *report : SaveReport());
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

// Step directories of a tier on a node, with or without a commit record.
std::vector<std::string> StepsOnNode(FileSystem& files, const std::string& directory,
                                     bool committed) {
  std::vector<std::string> steps;
  const auto names = files.List(directory);
  if (!names.ok()) return steps;
  for (const std::string& name : *names) {
    const std::string path = absl::StrCat(directory, "/", name);
    if (name.rfind("step-", 0) == 0 && files.Exists(path + "/COMMIT") == committed) {
      steps.push_back(path);
    }
  }
  return steps;
}

}  // namespace

std::string NodeFolder(const SavingJob& job, int node) {
  return absl::StrCat(job.directory.substr(0, job.directory.rfind('/')), "/node-", node);
}

std::vector<TierDirectory> TiersOfNode(const SavingJob& job, int node) {
  std::vector<TierDirectory> tiers;
  for (const SavingJob::Tier& tier : job.tiers) {
    tiers.push_back({tier.name, absl::StrCat(NodeFolder(job, node), "/", tier.name)});
  }
  return tiers;
}

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

std::set<int64_t> CheckTiers(FileSystem& files, const SavingJob& job, int nodes,
                             std::string& problem) {
  std::set<int64_t> whole;
  std::vector<int> node_of(static_cast<size_t>(nodes));
  for (int node = 0; node < nodes; ++node) node_of[node] = node;
  RankThreadOptions patience;
  patience.timeout = absl::Seconds(100);
  const absl::Status ran = RunRanks(
      nodes,
      [&](Transport& transport, Device&) -> absl::Status {
        const auto all = FindCheckpoints(files, job.directory, TiersOfNode(job, transport.rank()),
                                         node_of, transport);
        if (!all.ok()) return all.status();
        for (const FoundCheckpoint& found : *all) {
          if (found.copies.empty()) continue;
          JobStart start;
          const absl::Status status =
              Agree(transport, ReadBack(files, found, node_of, job.scale, transport, start));
          if (absl::IsDataLoss(status)) continue;
          if (!status.ok()) return status;
          if (transport.rank() == 0) whole.insert(found.step);
        }
        return absl::OkStatus();
      },
      patience);
  if (!ran.ok()) absl::StrAppend(&problem, ran.ToString(), "\n");
  return whole;
}

std::set<int64_t> CommittedOnNode(FileSystem& files, const std::string& directory) {
  std::set<int64_t> steps;
  for (const std::string& path : StepsOnNode(files, directory, true)) {
    steps.insert(std::stoll(path.substr(path.rfind("step-") + 5)));
  }
  return steps;
}

std::vector<std::string> LeftoverOnNode(FileSystem& files, const std::string& directory) {
  return StepsOnNode(files, directory, false);
}

}  // namespace longspan
