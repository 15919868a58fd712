// What a run tells its user before the first step.
#ifndef LONGSPAN_RUNTIME_TRAIN_RUN_DESCRIPTION_H_
#define LONGSPAN_RUNTIME_TRAIN_RUN_DESCRIPTION_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "optim/schedule.h"
#include "parallel/transport/transport.h"
#include "runtime/data/dataset.h"
#include "runtime/metrics/run_log.h"
#include "runtime/model/model_config.h"
#include "runtime/train/run_setup.h"

namespace longspan {

// Collective. FLOP/s of matrix products (runtime/metrics/peak.h), summed over the ranks while all
// of them measure.
absl::StatusOr<double> MeasurePeakOfAllRanks(Transport& transport, Stream& stream);

// Model, data, ranks, memory by tag and schedule, a line each. `peak_flops`: of all ranks, a
// second.
void DescribeRun(RunLog& log, const RunFolder& folder, const ModelConfig& model, int64_t parameters,
                 const Dataset& dataset, const Transport& transport, Device& device,
                 double peak_flops, const Schedule& schedule);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RUN_DESCRIPTION_H_
