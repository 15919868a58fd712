// A dry run: what a run on N ranks would hold, send and balance, from the data and the
// configuration alone.
#ifndef LONGSPAN_RUNTIME_TRAIN_DRY_RUN_H_
#define LONGSPAN_RUNTIME_TRAIN_DRY_RUN_H_

#include <string>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "runtime/train/run_config.h"

namespace longspan {

// A text for people, or a JSON object. Plans the first batches (up to 20 steps) for `ranks` ranks
// on devices of this kind, which need not be there. Nothing is written. Times and rates are
// estimates from operation counts and are marked so; memory is as EstimateMemory says.
absl::StatusOr<std::string> DryRun(const RunConfig& config, int ranks, DeviceKind device,
                                   bool json);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_DRY_RUN_H_
