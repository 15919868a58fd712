// RunCheckpoints: when a run saves its state, how, and what that costs it.
//
// Beside the checkpoint directory there may be tiers, each with its own interval (tier_saver.h);
// they are removed once the run has committed its newest state and ends.
//
// Lazy saves by default: the training thread takes a note, the next update waits at gates for what
// is not yet copied, and everything else happens in the background. What ranks must decide alike
// (is a save due, is one of us too busy, have too many failed) travels with the step's small
// all-reduce.
#ifndef LONGSPAN_RUNTIME_TRAIN_RUN_CHECKPOINTS_H_
#define LONGSPAN_RUNTIME_TRAIN_RUN_CHECKPOINTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"
#include "runtime/metrics/metrics_file.h"
#include "runtime/metrics/run_log.h"
#include "runtime/train/run_config.h"
#include "runtime/train/run_setup.h"
#include "runtime/train/run_state.h"
#include "runtime/train/training_state.h"

namespace longspan {

// For the training thread of one rank. What it was opened with outlives it.
class RunCheckpoints {
 public:
  // Places in the vector that ranks add up: this rank's in, the sums over ranks out.
  static constexpr int kMostTiers = 2;
  enum Vote : int {
    kDue,
    kBusy,
    kFailing,
    kTiersDue,
    kTiersBusy = kTiersDue + kMostTiers,
    kVotes = kTiersBusy + kMostTiers
  };

  // Collective.
  static absl::StatusOr<std::unique_ptr<RunCheckpoints>> Open(const RunConfig& config,
                                                              const RunFolder& folder,
                                                              const TrainingState& state,
                                                              Transport& transport, Device& device,
                                                              MetricsFile& metrics, RunLog& log);
  virtual ~RunCheckpoints() = default;

  virtual int64_t generation() const = 0;
  // The run begins with what was saved as `step`.
  virtual void Restored(int64_t step) = 0;

  // Fills `votes` (kVotes) with this rank's.
  virtual void CastVotes(double* votes) = 0;
  // A save may follow the update that makes the state that of `step`, with these sums of the votes:
  // it is to tell the content sums of what it writes.
  virtual bool WantsContentSums(int64_t step, const double* votes) const = 0;
  // Once before each update: a gate for each bucket. `stream`, which runs the update, is idle.
  virtual std::vector<Event> Gates(const Stream& stream) = 0;
  // Once after each update (`changed`: it was applied, at a rate above zero), with the sums of the
  // votes. Reports saves that have ended. An error, alike on all ranks, when too many failed in a
  // row.
  virtual absl::Status UpdateDone(const Stream& stream, bool changed, const double* votes) = 0;
  // After the update that made it `run`: saves if that is due. `stream` computes the state. Fails
  // only where training cannot go on.
  virtual absl::Status SaveIfDue(const RunState& run, Stream& stream) = 0;
  // Saves the state if it is not saved yet, waits for all saves, sums them up, and removes what is
  // in tiers. Collective. An error if the newest state is not committed.
  virtual absl::Status Finish(const RunState& run, Stream& stream) = 0;
  // Waits for the saves that are under way, after an error that all ranks have.
  virtual void Drain() = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RUN_CHECKPOINTS_H_
