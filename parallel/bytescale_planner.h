// BytescalePlanner, policy "bytescale": the balance scheduler of ByteScale (arXiv 2502.21231,
// Algorithm 2, DP-balance).
#ifndef LONGSPAN_PARALLEL_BYTESCALE_PLANNER_H_
#define LONGSPAN_PARALLEL_BYTESCALE_PLANNER_H_

#include <string>

#include "absl/status/statusor.h"
#include "parallel/planner.h"

namespace longspan {

// Longest first, a sequence longer than the capacity C takes the ceil(s / C) ranks that are free
// first, wherever they are; the ring starts when the last of them is free. The others stay whole:
// longest first to the rank that is furthest behind, into its fullest micro-batch with room.
// The paper gives sequences of a bucket of about equal work to the ranks that are behind; it leaves
// open what happens when a group needs more ranks than are behind: all ranks are eligible here.
class BytescalePlanner : public Planner {
 public:
  std::string name() const override { return "bytescale"; }

 protected:
  absl::StatusOr<PlanOutline> Decide(const PlanRequest& request,
                                     const IntegerCostModel& cost) const override;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_BYTESCALE_PLANNER_H_
