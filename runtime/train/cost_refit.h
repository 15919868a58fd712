// CostRefit: planner.cost = "refit". The cost model of a run is fitted to the times of its own
// micro-batches, on rank 0, and changes on all ranks at one announced step.
#ifndef LONGSPAN_RUNTIME_TRAIN_COST_REFIT_H_
#define LONGSPAN_RUNTIME_TRAIN_COST_REFIT_H_

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/cost_model.h"
#include "parallel/integer_cost.h"
#include "parallel/plan.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Coefficients of a cost model as whole numbers of 2^-20 ns, in the order of CostModel's fields:
// what ranks tell each other and checkpoints hold, so that every rank plans with the same bits.
using CostUnits = std::array<int64_t, 5>;
// Of seconds below one, all of them: UnitsOf(CostOf(units)) is units.
CostUnits UnitsOf(const CostModel& cost);
// Without rank speeds. What a run chooses (the window, which heads may be split) is that of `run`.
CostModel CostOf(const CostUnits& units, const CostModel& run);

// One cost model of a run, in effect for the plans of steps `from_step`, `from_step` + 1, ... until
// that of a later version. Steps count from 0 here: step n gives update n + 1.
struct CostVersion {
  int64_t version = 0;  // 1 for the first fit; 0 is what the run started with
  int64_t from_step = 0;
  CostUnits units{};
  friend bool operator==(const CostVersion&, const CostVersion&) = default;
};

// What a fit came to.
struct CostRefitResult {
  std::optional<CostVersion> adopted;  // none: the present model is as good
  int64_t samples = 0;
  double median_error = 0;          // of the fit, relative to the measured times
  double present_median_error = 0;  // of the model in use
};

// Not thread-safe.
class CostRefit {
 public:
  // Times of this many of the newest steps are kept.
  static constexpr int kSteps = 8;
  // A call's first steps touch memory and open connections for the first time: not recorded.
  static constexpr int kWarmUpSteps = 2;

  // `cost`: the newest model made so far, and its version.
  CostRefit(CostModel cost, int64_t version) : cost_(std::move(cost)), version_(version) {}

  // This rank's times of one step: `seconds[i]` of its micro-batch i, forward and backward, waiting
  // for the other members of a ring included. Every rank records every step. Rings that split heads
  // are left out: what their exchanges take, the coefficients do not tell.
  void Record(const StepPlan& plan, int rank, const std::vector<double>& seconds);

  // Whether a fit follows the step recorded last, alike on all ranks: after 8, 16, 32, ... steps,
  // from 256 on after every 256.
  bool Due() const;

  // Collective. Rank 0 fits to what all ranks have recorded and tells the others. A new model is
  // adopted if its median error is under four fifths of the present one's. Coefficients that the
  // times cannot tell (of rings, where there were none) stay.
  absl::StatusOr<CostRefitResult> Fit(int64_t from_step, Transport& transport);

 private:
  // A micro-batch of one rank. Sent as it is: ranks of one job run one build.
  struct Sample {
    int64_t step;
    int64_t ring;  // -1: none
    int64_t tokens, pairs, ring_pairs, ring_tokens, members;
    double seconds;
  };

  CostRefitResult FitTo(const std::vector<Sample>& samples) const;

  CostModel cost_;
  int64_t version_;
  int64_t steps_ = 0;                        // recorded or passed over so far
  std::deque<std::vector<Sample>> samples_;  // of the newest steps
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_COST_REFIT_H_
