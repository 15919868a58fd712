#include "runtime/train/save_costs.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/metrics/run_log.h"

namespace longspan {
namespace {

double UpperMedian(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

std::string Milliseconds(double seconds) { return absl::StrFormat("%.3g ms", 1e3 * seconds); }

}  // namespace

CheckpointMetrics MetricsOf(int64_t step, int64_t attempt, const SaveReport& report) {
  CheckpointMetrics metrics;
  metrics.step = step;
  metrics.attempt = attempt;
  metrics.bytes = report.bytes;
  metrics.seconds = report.seconds;
  metrics.copy_seconds = report.copy_seconds;
  metrics.write_seconds = report.write_seconds;
  metrics.pool_seconds = report.pool_seconds;
  metrics.processor_seconds = report.processor_seconds;
  metrics.checked_sums = report.checked_sums;
  metrics.backlog_bytes = report.backlog_bytes;
  return metrics;
}

std::string SaveCosts::Summary(int64_t skipped, int64_t failed, const StepSeconds& steps) const {
  std::string text = absl::StrCat("checkpoints: ", saves(), " saved");
  if (skipped > 0) absl::StrAppend(&text, ", ", skipped, " skipped");
  if (failed > 0) absl::StrAppend(&text, ", ", failed, " failed");
  if (saves_.empty()) return text;
  const auto values = [&](const std::function<double(const CheckpointMetrics&)>& of) {
    std::vector<double> all;
    for (const CheckpointMetrics& save : saves_) all.push_back(of(save));
    return all;
  };
  const std::vector<double> blocked =
      values([](const CheckpointMetrics& save) { return save.blocked_seconds; });
  absl::StrAppend(&text, "; training blocked ", Milliseconds(UpperMedian(blocked)),
                  " a save at the median, ",
                  Milliseconds(*std::max_element(blocked.begin(), blocked.end())), " at most");
  absl::StrAppend(&text, "; committed after ",
                  Milliseconds(UpperMedian(
                      values([](const CheckpointMetrics& save) { return save.seconds; }))));
  if (saves_.back().write_seconds > 0) {
    absl::StrAppend(&text, "; ", ShortBytes(UpperMedian(values([](const CheckpointMetrics& save) {
      return static_cast<double>(save.bytes) / save.write_seconds;
    }))),
                    "/s written, sync included");
  }
  if (steps.beside() > 0 && steps.alone() > 0) {
    absl::StrAppend(&text, "; steps beside saves took ", Milliseconds(steps.beside()), ", others ",
                    Milliseconds(steps.alone()));
  }
  return text;
}

IntervalChoice ChooseInterval(const CheckpointMetrics& save, int cores, double mtbf_seconds) {
  const double background = save.processor_seconds / std::max(1, cores);
  const double cost = save.blocked_seconds + background;
  const double young = std::sqrt(2 * cost * mtbf_seconds);
  IntervalChoice choice{std::max(young, save.seconds), ""};
  choice.reason = absl::StrFormat(
      "a save costs %s (%s blocked, %s of background work) and a failure is expected every %.3g h: "
      "sqrt(2 * cost * time between failures) = %s",
      Milliseconds(cost), Milliseconds(save.blocked_seconds), Milliseconds(background),
      mtbf_seconds / 3600, ShortTime(young));
  if (young < save.seconds) {
    absl::StrAppend(&choice.reason, ", but a save takes ", ShortTime(save.seconds),
                    " to be committed");
  }
  return choice;
}

}  // namespace longspan
