// Which rank stands where on the rank line: slow ranks together, rings inside nodes.
#ifndef LONGSPAN_PARALLEL_NODE_PLACEMENT_H_
#define LONGSPAN_PARALLEL_NODE_PLACEMENT_H_

#include <vector>

#include "parallel/plan_outline.h"

namespace longspan {

// Rank of each position: ranks by number if all are equally fast, else nodes by their slowest rank
// and ranks of a node by speed, so that a ring rarely waits for one slow member.
std::vector<int> SpeedOrder(const IntegerCostModel& cost, int ranks, int ranks_per_node);

// Makes the outline's rank i the rank line[i].
void Renumber(PlanOutline& outline, const std::vector<int>& line);

// For equally fast ranks. The line falls into blocks that no ring joins, and these may stand in any
// order: wide ones begin at a node, narrow ones share nodes. Keeps the order that there is when
// that has less traffic between nodes. Makespan and peers stay as they are.
void AlignToNodes(PlanOutline& outline, int ranks_per_node);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_NODE_PLACEMENT_H_
