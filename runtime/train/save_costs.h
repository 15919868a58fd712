// SaveCosts: what saves cost a run, for its summary and for choosing the interval.
#ifndef LONGSPAN_RUNTIME_TRAIN_SAVE_COSTS_H_
#define LONGSPAN_RUNTIME_TRAIN_SAVE_COSTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "runtime/metrics/metrics_file.h"

namespace longspan {

// What steps take while saves are under way and while none is, the waits at gates aside. Steps
// compute different amounts: only many of them tell.
class StepSeconds {
 public:
  void Add(double seconds, bool beside_a_save) {
    Mean& mean = beside_a_save ? beside_ : alone_;
    mean.seconds += (seconds - mean.seconds) / static_cast<double>(++mean.steps);
  }
  // Means; 0 while there is no such step.
  double beside() const { return beside_.seconds; }
  double alone() const { return alone_.seconds; }

 private:
  struct Mean {
    double seconds = 0;
    int64_t steps = 0;
  };
  Mean beside_, alone_;
};

// A save that was asked for and is not yet accounted for.
struct SaveUnderWay {
  double blocked_seconds = 0;  // of the training thread and its stream
  StepSeconds steps;           // that it has been under way in
};

// Without what the training thread knows of it.
CheckpointMetrics MetricsOf(int64_t step, int64_t attempt, const SaveReport& report);

// Not thread-safe.
class SaveCosts {
 public:
  void Add(const CheckpointMetrics& save) { saves_.push_back(save); }
  int64_t saves() const { return static_cast<int64_t>(saves_.size()); }
  // One line; `skipped` and `failed` saves are not among those added; `steps`: of the run.
  std::string Summary(int64_t skipped, int64_t failed, const StepSeconds& steps) const;

 private:
  std::vector<CheckpointMetrics> saves_;
};

// The interval in seconds after which to save again, and why, in words.
struct IntervalChoice {
  double seconds = 0;
  std::string reason;
};

// Young and Daly: sqrt(2 * cost / failure rate), but no shorter than a save takes to be committed.
// `cores`: of this rank, over which background work spreads; `mtbf_seconds`: between failures of
// the whole job.
IntervalChoice ChooseInterval(const CheckpointMetrics& save, int cores, double mtbf_seconds);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_SAVE_COSTS_H_
