#include "checkpoint_scenario.h"

#include <gtest/gtest.h>

#include "../checkpoint/sharded_state.h"
#include "parallel/transport/rank_threads.h"

namespace longspan {

std::vector<SaveOutcome> RunAttempt(SimulatedDisk& disk, int ranks, int keep_last,
                                    const std::vector<int64_t>& steps,
                                    const std::function<void(size_t save)>& before_save,
                                    const std::function<void(size_t save)>& after_save) {
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
  const absl::Status run = RunRanks(
      ranks,
      [&](Transport& transport, Device&) -> absl::Status {
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
