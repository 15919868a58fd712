// PlanOutline: what a policy decides, before token ranges are written out. A mesh of 256 ranks that
// cuts 100,000 short documents has 25 million slices; its outline is still small.
#ifndef LONGSPAN_PARALLEL_PLAN_OUTLINE_H_
#define LONGSPAN_PARALLEL_PLAN_OUTLINE_H_

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "parallel/plan.h"
#include "parallel/plan_timeline.h"

namespace longspan {

struct PlanOutline {
  // One micro-batch on each of its ranks; holds its share of each of its sequences.
  struct Ring {
    absl::InlinedVector<int64_t, 1> sequences;
    std::vector<int> ranks;  // at least two, in ring order
    int head_parallel = 1;   // SequenceGroup::head_parallel
  };
  struct MicroBatch {
    int64_t ring = -1;               // index into rings; -1: none
    std::vector<int64_t> sequences;  // whole ones, beside the ring's
  };
  std::vector<Ring> rings;                             // every rank meets them in this order
  std::vector<std::vector<MicroBatch>> micro_batches;  // by rank, in execution order
};

// The plan that an outline of `lengths` stands for; its certificate is empty.
StepPlan Expand(const PlanOutline& outline, const std::vector<int64_t>& lengths,
                int64_t micro_batch_tokens);

// The same as TimelineOf the expanded plan.
PlanTimeline TimelineOf(const PlanOutline& outline, const std::vector<int64_t>& lengths,
                        const IntegerCostModel& cost);

// Out over every second rank of [first, first + width) and back over the others: neighbours in the
// ring are at most two ranks apart, so that a rank meets at most four others in all intervals.
std::vector<int> IntervalRing(int first, int width);

// What member `member` of `members` ranks holds of a sequence, as a micro-batch of its own.
MicroBatchLoad ShareLoad(int64_t length, int members, int member, int64_t window);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_PLAN_OUTLINE_H_
