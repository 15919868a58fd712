// Cost models from measured times: least squares over the cost formula. Pure.
#ifndef LONGSPAN_RUNTIME_COST_COST_FIT_H_
#define LONGSPAN_RUNTIME_COST_COST_FIT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "parallel/cost_model.h"
#include "parallel/integer_cost.h"

namespace longspan {

// A micro-batch, forward plus backward, as measured.
struct CostSample {
  MicroBatchLoad load;
  double seconds = 0;  // > 0
};

// The cost formula in floating point, on a rank of speed 1.
double MicroBatchSeconds(const CostModel& cost, const MicroBatchLoad& load);

struct CostFit {
  CostModel cost;
  std::vector<double> fitted_seconds;  // of each sample
  double median_error = 0;             // relative to the measured time
  double worst_error = 0;
};

// Coefficients >= 0 with the least sum of squared relative errors. The formula's maximum makes it
// linear by pieces: which piece each sample is on is found by turns. A coefficient that the samples
// do not tell (a ring always hidden, or no rings at all) is 0. InvalidArgument: fewer than three
// samples, or a time that is not positive.
absl::StatusOr<CostFit> FitCost(const std::vector<CostSample>& samples);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_COST_COST_FIT_H_
