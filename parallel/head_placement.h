// Which rings split heads, and how their ranks are ordered for it.
#ifndef LONGSPAN_PARALLEL_HEAD_PLACEMENT_H_
#define LONGSPAN_PARALLEL_HEAD_PLACEMENT_H_

#include <cstdint>
#include <vector>

#include "parallel/integer_cost.h"
#include "parallel/plan_outline.h"

namespace longspan {

// Gives every ring the width of head parallelism with which it ends first (or the largest, as the
// cost model says), as if all ranks were on one node. Ranks keep their order.
void ChooseHeads(PlanOutline& outline, const std::vector<int64_t>& lengths,
                 const IntegerCostModel& cost);

// The same with nodes: rank r is on node r / ranks_per_node, 0: all on one. Members that split
// heads are neighbours on one node, so a width must divide the number of the ring's ranks on each
// node. Rings that split heads are ordered anew: blocks of neighbouring ranks, out over every
// second block and back over the others; then a rank meets those of its block and at most four
// others in all rings of one width. A ring whose members would then hold more than `capacity`
// tokens (shares differ by a token or two) keeps its order and all heads.
void PlaceHeads(PlanOutline& outline, const std::vector<int64_t>& lengths, int64_t capacity,
                int ranks_per_node, const IntegerCostModel& cost);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_HEAD_PLACEMENT_H_
