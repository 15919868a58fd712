#include "runtime/train/run_schedule.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/metrics/number_lines.h"

namespace longspan {

absl::StatusOr<Schedule> ScheduleOf(const RunConfig& config) {
  const RunConfig::ScheduleKeys& keys = config.schedule;
  ScheduleConfig schedule;
  schedule.kind = keys.kind;
  schedule.peak = keys.peak;
  schedule.warmup = keys.warmup;
  schedule.floor = keys.floor;
  schedule.steps = config.run.steps;
  schedule.profile = keys.profile;
  schedule.sampling = keys.sampling;
  if (keys.kind == "table") {
    if (keys.file.empty()) {
      return absl::InvalidArgumentError(
          "schedule.kind = \"table\" needs schedule.file: a text file of rates, one a line");
    }
    absl::StatusOr<std::vector<double>> rates = ReadNumberLines(keys.file);
    if (!rates.ok()) return rates.status();
    if (static_cast<int64_t>(rates->size()) != config.run.steps) {
      return absl::InvalidArgumentError(absl::StrCat(keys.file, ": has ", rates->size(),
                                                     " rates, but run.steps = ", config.run.steps,
                                                     "; they must be as many"));
    }
    schedule.values = *std::move(rates);
    schedule.note = keys.file;
  }
  return Schedule::Create(schedule);
}

}  // namespace longspan
