// NormRecorder: fills norms.h5 as a run goes. Every rank has one; rank 0's writes.
#ifndef LONGSPAN_RUNTIME_TRAIN_NORM_RECORDER_H_
#define LONGSPAN_RUNTIME_TRAIN_NORM_RECORDER_H_

#include <string>

#include "absl/status/status.h"
#include "kernels/device/stream.h"
#include "optim/gradient_norms.h"
#include "parallel/transport/transport.h"
#include "runtime/metrics/metrics_file.h"
#include "runtime/metrics/norm_log.h"
#include "runtime/train/run_config.h"

namespace longspan {

// The optimizer's own measure of an update's gradient comes from the update pass, after the step's
// one small all-reduce: it travels with the next step's, and the last one with a message of its
// own. Not thread-safe.
class NormRecorder {
 public:
  // On the rank that writes, before the first update: makes `path` for the run's steps. Rows of
  // updates before `step` are taken over from the file that is there. `schedule`: the plan as JSON.
  absl::Status Open(const std::string& path, const RunConfig& config, const std::string& schedule,
                    int64_t step);

  // On rank 0, after a step's all-reduce: what all ranks' update passes measured (adam_sum of
  // ShardedOptimizer::Update), in the update before.
  absl::Status RecordAdamSum(double sum);
  // On rank 0: update `step`, counted from 0.
  absl::Status Record(int64_t step, const GradientNorms& norms, const StepMetrics& metrics,
                      int64_t targets);

  // Collective, on a stream of the CPU: completes the last update's row with the ranks' `adam_sum`.
  absl::Status Finish(double adam_sum, Transport& transport, Stream& stream);

 private:
  NormLog log_;
  NormRecord last_;
  int64_t last_step_ = -1;
  bool adam_ = false;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_NORM_RECORDER_H_
