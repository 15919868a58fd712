// Restoring a run from its newest valid checkpoint, on any number of ranks.
#ifndef LONGSPAN_RUNTIME_TRAIN_RESTORE_H_
#define LONGSPAN_RUNTIME_TRAIN_RESTORE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/transport/transport.h"
#include "runtime/metrics/run_log.h"
#include "runtime/train/run_setup.h"
#include "runtime/train/run_state.h"
#include "runtime/train/training_state.h"

namespace longspan {

// Collective. `resume` is "auto" (newest of the run's folder and of
// its tiers, read from wherever its files are) or a step directory. Fills this
// rank's shards and `run`; the caller gathers parameters. A checkpoint that does not verify is left
// for the next older one, with a warning; with "auto" and none left, returns false: the run starts
// fresh. Changed keys are checked and logged (CompareForResume); run.schedule becomes the plan that
// goes on from there (ScheduleOnResume).
absl::StatusOr<bool> RestoreRun(const std::string& resume, const RunFolder& folder,
                                const RunConfig& values, const std::vector<ConfigEntry>& config,
                                TrainingState& state, Transport& transport, RunLog& log,
                                RunState& run);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RESTORE_H_
