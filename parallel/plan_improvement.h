// Local search on a finished outline: the last percents of small batches.
#ifndef LONGSPAN_PARALLEL_PLAN_IMPROVEMENT_H_
#define LONGSPAN_PARALLEL_PLAN_IMPROVEMENT_H_

#include <cstdint>
#include <vector>

#include "parallel/plan_outline.h"

namespace longspan {

// Moves and exchanges whole sequences between micro-batches (those of rings included: a ring hides
// behind them), and lets a ring take a pack of each of its members at once, as long as the makespan
// or else the ranks' total time falls, until it is at most `target` or `evaluations` timelines have
// been computed. Every micro-batch keeps to `capacity`. Deterministic.
void Improve(PlanOutline& outline, const std::vector<int64_t>& lengths, int64_t capacity,
             const IntegerCostModel& cost, PlanningTime target, int64_t evaluations);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_PLAN_IMPROVEMENT_H_
