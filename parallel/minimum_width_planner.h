// MinimumWidthPlanner, policy "minimum-width": each long sequence on the fewest ranks that hold it.
#ifndef LONGSPAN_PARALLEL_MINIMUM_WIDTH_PLANNER_H_
#define LONGSPAN_PARALLEL_MINIMUM_WIDTH_PLANNER_H_

#include <string>

#include "absl/status/statusor.h"
#include "parallel/planner.h"

namespace longspan {

// 1. Longest first, each sequence longer than the capacity C takes ceil(s / C) neighbouring ranks:
//    the interval whose latest member is free earliest, the lowest one among equals. Each is a ring
//    of its own; rings are numbered by start time.
// 2. The others stay whole: longest first onto the least-loaded rank, the lowest one among equals,
//    there into the micro-batch with the least room that still holds it, a ring's micro-batches
//    included, else into a new one.
// A rank's rings come first in its list. Ties between sequences go by index. Any number of threads
// may plan at once.
class MinimumWidthPlanner : public Planner {
 public:
  std::string name() const override { return "minimum-width"; }
  absl::StatusOr<StepPlan> Plan(const PlanRequest& request) const override;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_MINIMUM_WIDTH_PLANNER_H_
