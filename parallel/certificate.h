// How good a plan is: its makespan under a cost model beside lower bounds that no plan can beat.
#ifndef LONGSPAN_PARALLEL_CERTIFICATE_H_
#define LONGSPAN_PARALLEL_CERTIFICATE_H_

#include "absl/status/statusor.h"
#include "parallel/cost_model.h"
#include "parallel/plan.h"

namespace longspan {

// The certificate of a plan that Validate accepts, ranks of speed 1; planning_seconds stays 0. The
// micro-batches of one ring start together and end together, at the largest of their costs.
// Bounds, with C = micro_batch_tokens, d0 = ceil(s / C) and p = s*(s+1)/2 of each sequence:
//  - area: (sum of (linear*s + attention*p + ring_step*d0*(d0-1)) + micro_batch*ceil(tokens / C))
//    / ranks;
//  - longest: the best time of the longest sequence on any width >= d0, + micro_batch;
//  - wide: the sum of the best times of sequences with d0 > ranks/2, which cannot overlap.
// Integer arithmetic: the same bits on every machine. InvalidArgument: a coefficient out of range,
// or too many tokens.
absl::StatusOr<PlanCertificate> Certify(const StepPlan& plan, const CostModel& cost);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_CERTIFICATE_H_
