// SkylinePlanner, policy "skyline": chooses each sequence's width for time, not for room.
#ifndef LONGSPAN_PARALLEL_SKYLINE_PLANNER_H_
#define LONGSPAN_PARALLEL_SKYLINE_PLANNER_H_

#include <string>

#include "absl/status/statusor.h"
#include "parallel/planner.h"

namespace longspan {

// 1. For a guess of the makespan, a little above the lower bound at first, each sequence takes the
//    smallest width whose time is within the guess; never more than makes it faster.
// 2. Longest first, those of two ranks and more take an interval of the rank line: one in which
//    nobody waits (Skyline::WithoutWaiting), else the one that is free first.
// 3. The others stay whole: into the waits of 2 where they fit, else longest first to the rank that
//    is free first.
// 4. Small batches are searched further: widths and order of single sequences are changed while
//    that helps, packs join rings that have room. What "static", "naive" and "bytescale" reach is
//    not exceeded, with two exceptions: bytescale is not held to four peers, which can tell where
//    nothing but messages costs time; and batches of more than 2^15 sequences and ranks are not
//    compared once the gap is 0.5%.
// 5. Where the cost model allows it, groups split heads: each width is taken with the best width of
//    head parallelism that divides it, as if nodes had no borders. What the nodes then allow is
//    settled when all ranks are placed (PlaceHeads); a plan made for rings alone is taken where it
//    is better then.
// 6. Blocks of ranks that no ring joins are put side by side so that few rings cross nodes.
// Rings are intervals, so a rank meets at most four others, whatever the lengths (where heads are
// split, at most four for each width of head parallelism, and those of its node). Ranks of
// different speeds stand on the line by node and speed. Stops once the gap is 1% in large batches,
// 0.1% in small ones.
class SkylinePlanner : public Planner {
 public:
  std::string name() const override { return "skyline"; }

 protected:
  absl::StatusOr<PlanOutline> Decide(const PlanRequest& request,
                                     const IntegerCostModel& cost) const override;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_SKYLINE_PLANNER_H_
