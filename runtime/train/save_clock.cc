#include "runtime/train/save_clock.h"

#include "absl/strings/str_cat.h"
#include "runtime/metrics/run_log.h"
#include "runtime/train/save_costs.h"

namespace longspan {

SaveClock::SaveClock(const SaveInterval& interval, int cores, double mtbf_seconds)
    : interval_(interval),
      cores_(cores),
      mtbf_seconds_(mtbf_seconds),
      last_(std::chrono::steady_clock::now()) {}

bool SaveClock::DueByStep(int64_t step) const {
  return interval_.steps > 0 && step % interval_.steps == 0;
}

bool SaveClock::DueByClock() const {
  if (interval_.steps > 0) return false;
  const double since =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - last_).count();
  if (!interval_.automatic) return since >= interval_.seconds;
  // The first save tells what one costs.
  if (automatic_seconds_ <= 0) return begun_ == failed_;
  return since >= automatic_seconds_;
}

void SaveClock::Begun() {
  last_ = std::chrono::steady_clock::now();
  ++begun_;
}

void SaveClock::Skipped() { last_ = std::chrono::steady_clock::now(); }

void SaveClock::Failed() { ++failed_; }

std::string SaveClock::Learn(const CheckpointMetrics& save) {
  if (!interval_.automatic) return "";
  const IntervalChoice choice = ChooseInterval(save, cores_, mtbf_seconds_);
  const double ratio = automatic_seconds_ > 0 ? choice.seconds / automatic_seconds_ : 2;
  if (ratio < 1.5 && ratio > 1 / 1.5) return "";
  automatic_seconds_ = choice.seconds;
  return absl::StrCat("a save every ", ShortTime(choice.seconds), ", because ", choice.reason);
}

}  // namespace longspan
