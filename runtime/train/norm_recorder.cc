#include "runtime/train/norm_recorder.h"

#include <algorithm>
#include <utility>

namespace longspan {

absl::Status NormRecorder::Open(const std::string& path, const RunConfig& config,
                                const std::string& schedule, int64_t step) {
  NormLogContents contents;
  if (step > 0) {
    // What cannot be read is lost for refined schedules; the run itself does not need it.
    absl::StatusOr<NormLogContents> before = ReadNormLog(path);
    if (before.ok()) contents = *std::move(before);
  }
  // Rows that an abandoned attempt wrote after `step` go, so that none is taken for this one's.
  contents.updates.resize(std::min<size_t>(contents.updates.size(), static_cast<size_t>(step)));
  contents.updates.resize(config.run.steps);
  contents.optimizer = config.optimizer.kind;
  contents.weight_decay = config.optimizer.weight_decay;
  contents.schedule = schedule;
  absl::StatusOr<NormLog> log = NormLog::Create(path, contents);
  if (!log.ok()) return log.status();
  log_ = *std::move(log);
  adam_ = config.optimizer.kind == "adamw";
  return absl::OkStatus();
}

absl::Status NormRecorder::RecordAdamSum(double sum) {
  if (last_step_ < 0 || !adam_ || std::isnan(last_.l1)) return absl::OkStatus();
  // The pass sees clipped gradients.
  last_.adam = sum / (last_.clip_factor * last_.clip_factor);
  return log_.Write(std::exchange(last_step_, -1), last_);
}

absl::Status NormRecorder::Record(int64_t step, const GradientNorms& norms,
                                  const StepMetrics& metrics, int64_t targets) {
  last_ = NormRecord();
  if (!metrics.skipped) {
    last_.l1 = norms.l1;
    last_.l2 = norms.l2;
    last_.clip_factor = metrics.clip_factor;
  }
  last_.non_finite = static_cast<double>(norms.non_finite);
  last_.rate = metrics.rate;
  last_.loss = metrics.loss;
  last_.tokens = static_cast<double>(targets);
  last_step_ = step;
  return log_.Write(step, last_);
}

absl::Status NormRecorder::Finish(double adam_sum, Transport& transport, Stream& stream) {
  transport.AllReduceSum(TensorView::Of(&adam_sum, {1}), stream);
  if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
  return RecordAdamSum(adam_sum);
}

}  // namespace longspan
