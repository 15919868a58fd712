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
#include "runtime/train/run_state.h"

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

// The schedule of a run that goes on from a checkpoint, as JSON. The stored plan goes on as long as
// neither the budget nor a key of [schedule] has changed; files that it was made from are not read
// again. Changed keys make a new plan. A changed budget is refused with the choices, or re-planned
// as schedule.on_budget_change says; with "rescale", the plan of the present configuration is used.
// entries: of the present configuration. *change: what to tell people; "" without a change.
absl::StatusOr<std::string> ScheduleOnResume(const RunState& saved, const RunConfig& config,
                                             const std::vector<ConfigEntry>& entries,
                                             std::string* change);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RUN_SCHEDULE_H_
