// PlanTimeline: when each micro-batch of a plan starts and ends under a cost model. Certificates,
// drawings and policies read it.
#ifndef LONGSPAN_PARALLEL_PLAN_TIMELINE_H_
#define LONGSPAN_PARALLEL_PLAN_TIMELINE_H_

#include <cstdint>
#include <vector>

#include "parallel/integer_cost.h"
#include "parallel/plan.h"

namespace longspan {

// A micro-batch as the cost model sees it.
struct TimedMicroBatch {
  MicroBatchLoad load;
  int64_t ring = -1;       // number of its ring, dense from 0 in ring order; -1: none
  PlanningTime cost = 0;   // of this rank alone, at its speed
  PlanningTime start = 0;  // in a ring: when its last member is free
  PlanningTime end = 0;    // in a ring: start plus the largest cost of its members
};

struct PlanTimeline {
  std::vector<std::vector<TimedMicroBatch>> micro_batches;  // by rank, in execution order
  PlanningTime makespan = 0;
};

// What one of the plan's micro-batches costs time for.
MicroBatchLoad LoadOf(const StepPlan& plan, const MicroBatch& micro_batch, int64_t window);

// Its ring is known by the lowest of its groups; -1: no ring.
int64_t RingNumber(const MicroBatch& micro_batch);

// Sets cost, start, end and the makespan from loads and rings. Every rank's rings increase.
// O(number of micro-batches).
void RunTimeline(const IntegerCostModel& cost, PlanTimeline& timeline);

// Of a plan that Validate accepts.
PlanTimeline TimelineOf(const StepPlan& plan, const IntegerCostModel& cost);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_PLAN_TIMELINE_H_
