#include "checkpoint_scenario.h"

#include <gtest/gtest.h>

#include <cstring>

#include "../checkpoint/sharded_state.h"
#include "checkpoint/lazy_writer.h"
#include "parallel/transport/rank_threads.h"

namespace longspan {

std::vector<SaveOutcome> RunAttempt(SimulatedDisk& disk, int ranks, int keep_last,
                                    const std::vector<int64_t>& steps,
                                    const std::function<void(size_t save)>& before_save,
                                    const std::function<void(size_t save)>& after_save,
                                    SaveMode mode) {
  std::vector<SaveOutcome> outcomes(steps.size());
  for (SaveOutcome& outcome : outcomes) {
    outcome.status.resize(ranks);
    outcome.warnings.resize(ranks);
  }
  CheckpointOptions options;
  options.directory = kCheckpoints;
  options.run_id = "faults";
  options.keep_last = keep_last;
  RankThreadOptions patience;
  patience.timeout = absl::Seconds(60);
  const auto save_lazily = [&](Transport& transport, Device& device) -> absl::Status {
    const int rank = transport.rank();
    // The memory that is registered, and what it becomes from save to save.
    const ShardedState state(rank, ranks, 0);
    std::vector<StateRegion> regions = state.regions();
    for (size_t i = 0; i < regions.size(); ++i) regions[i].gate = static_cast<int>(i);
    LazyOptions lazy;
    lazy.timeout = absl::Seconds(30);
    auto writer =
        LazyCheckpointWriter::Open(disk, options, lazy, regions, device.memory(), transport);
    if (!writer.ok()) return writer.status();
    std::vector<Event> gates(regions.size());
    size_t ended = 0;
    const auto collect = [&] {
      (*writer)->Drain();
      for (const FinishedSave& finished : (*writer)->TakeFinished()) {
        outcomes[ended].status[rank] = finished.status;
        outcomes[ended++].warnings[rank] = finished.report.warnings;
      }
    };
    for (size_t i = 0; i < steps.size(); ++i) {
      const ShardedState next(rank, ranks, steps[i]);
      for (size_t r = 0; r < regions.size(); ++r) {
        if (absl::Status status = gates[r].Wait(); !status.ok()) return status;
        const StateRegion& from = next.regions()[r];
        const int64_t bytes = (from.flat_end - from.flat_begin) * SizeOf(from.dtype);
        if (bytes > 0) std::memcpy(regions[r].data, from.data, static_cast<size_t>(bytes));
      }
      if (absl::Status status = transport.Barrier(); !status.ok()) return status;
      if (rank == 0 && before_save) before_save(i);
      if (absl::Status status = transport.Barrier(); !status.ok()) return status;
      gates = (*writer)->Snapshot(
          {steps[i], [step = steps[i]] { return StateMetadata(step); }, Event(), true});
      if (before_save || after_save) collect();
      if (absl::Status status = transport.Barrier(); !status.ok()) return status;
      if (rank == 0 && after_save) after_save(i);
    }
    collect();
    return transport.Barrier();
  };
  const absl::Status run = RunRanks(
      ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        if (mode == SaveMode::kLazy) return save_lazily(transport, device);
        auto writer = CheckpointWriter::Open(disk, options, transport);
        if (!writer.ok()) return writer.status();
        for (size_t i = 0; i < steps.size(); ++i) {
          const ShardedState state(transport.rank(), ranks, steps[i]);
          // Nobody is in a save while rank 0 arms or disarms the disk.
          if (absl::Status status = transport.Barrier(); !status.ok()) return status;
          if (transport.rank() == 0 && before_save) before_save(i);
          if (absl::Status status = transport.Barrier(); !status.ok()) return status;
          auto report = (*writer)->Save(steps[i], state.regions(), StateMetadata(steps[i]));
          outcomes[i].status[transport.rank()] = report.status();
          if (report.ok()) outcomes[i].warnings[transport.rank()] = report->warnings;
          if (absl::Status status = transport.Barrier(); !status.ok()) return status;
          if (transport.rank() == 0 && after_save) after_save(i);
        }
        return transport.Barrier();
      },
      patience);
  EXPECT_TRUE(run.ok()) << run;
  return outcomes;
}

int64_t LoadNewest(SimulatedDisk& disk, std::string& problem) {
  problem.clear();
  const auto found = ListCheckpoints(disk, kCheckpoints);
  if (!found.ok()) {
    problem = found.status().ToString();
    return -1;
  }
  if (found->empty()) return -1;
  const CheckpointInfo& info = found->front();
  if (absl::Status status = VerifyCheckpoint(disk, info); !status.ok()) {
    problem = status.ToString();
  }
  ShardedState state(0, 1, info.step);
  state.Clear();
  if (absl::Status status = RestoreRegions(disk, info, state.regions()); !status.ok()) {
    problem = status.ToString();
  } else if (std::string difference = state.DifferenceFrom(info.step); !difference.empty()) {
    problem = difference;
  }
  if (info.metadata != StateMetadata(info.step)) problem = "metadata: " + info.metadata;
  return info.step;
}

}  // namespace longspan
