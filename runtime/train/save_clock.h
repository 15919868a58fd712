// SaveClock: when a save is due, after a number of steps, some time, or as often as pays. And how
// long one took.
#ifndef LONGSPAN_RUNTIME_TRAIN_SAVE_CLOCK_H_
#define LONGSPAN_RUNTIME_TRAIN_SAVE_CLOCK_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "runtime/metrics/metrics_file.h"
#include "runtime/train/run_config.h"

namespace longspan {

// Since `begin`.
inline double ElapsedSeconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Of one place that is saved to. Not thread-safe.
class SaveClock {
 public:
  // As ChooseInterval, for an automatic interval.
  SaveClock(const SaveInterval& interval, int cores, double mtbf_seconds);

  bool DueByStep(int64_t step) const;
  // Ranks' clocks differ: one of them decides.
  bool DueByClock() const;
  // A save begins now, or is left out.
  void Begun();
  void Skipped();
  void Failed();
  // An automatic interval is chosen anew; "a save every 12 s, because ..." where it changes by
  // half, else "".
  std::string Learn(const CheckpointMetrics& save);

 private:
  const SaveInterval interval_;
  const int cores_;
  const double mtbf_seconds_;
  std::chrono::steady_clock::time_point last_;
  int64_t begun_ = 0, failed_ = 0;
  double automatic_seconds_ = 0;  // 0: nothing is known of what a save costs
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_SAVE_CLOCK_H_
