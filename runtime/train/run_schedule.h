// The schedule of a run, from its configuration and the files that it names.
#ifndef LONGSPAN_RUNTIME_TRAIN_RUN_SCHEDULE_H_
#define LONGSPAN_RUNTIME_TRAIN_RUN_SCHEDULE_H_

#include "absl/status/statusor.h"
#include "optim/schedule.h"
#include "runtime/train/run_config.h"

namespace longspan {

// Not collective: every rank reads the files for itself. Schedule::Create's errors, and those of
// the files.
absl::StatusOr<Schedule> ScheduleOf(const RunConfig& config);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RUN_SCHEDULE_H_
