// The schedule of a run, from its configuration and the files that it names.
#ifndef LONGSPAN_RUNTIME_TRAIN_RUN_SCHEDULE_H_
#define LONGSPAN_RUNTIME_TRAIN_RUN_SCHEDULE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "optim/refine.h"
#include "optim/schedule.h"
#include "runtime/metrics/norm_log.h"
#include "runtime/train/run_config.h"

namespace longspan {

// Not collective: every rank reads the files for itself. Schedule::Create's errors, and those of
// the files.
absl::StatusOr<Schedule> ScheduleOf(const RunConfig& config);

// A refined schedule from the norms that an earlier run left in its folder.
struct RefinedFromRun {
  RefinedSchedule refined;
  GradientNorm norm;  // that was used
  NormLogContents source;
  std::vector<std::string> warnings;  // what makes the norms less to be trusted
  std::string Summary() const;        // one line for people
};

// options.norm counts only where `norm` is "l1" or "l2"; with "auto" it fits the run's optimizer.
// Refine's errors; NotFound when the run has no norms.h5.
absl::StatusOr<RefinedFromRun> RefineFromRun(const std::string& run, const std::string& norm,
                                             RefineOptions options);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RUN_SCHEDULE_H_
