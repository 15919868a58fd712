// How good a plan is: its makespan under a cost model beside lower bounds that no plan can beat.
#ifndef LONGSPAN_PARALLEL_CERTIFICATE_H_
#define LONGSPAN_PARALLEL_CERTIFICATE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "parallel/cost_model.h"
#include "parallel/plan.h"

namespace longspan {

// The certificate of a plan that Validate accepts; planning_seconds stays 0. The micro-batches of
// one ring start together and end together, at the largest of their costs.
// Bounds, with C = micro_batch_tokens, d0 = ceil(s / C) and p = s*(s+1)/2 of each sequence:
//  - area: (sum of (linear*s + attention*p + ring_step*d0*(d0-1)/h) + micro_batch*ceil(tokens / C))
//    / the sum of rank speeds. Sequences that share a ring of d ranks fill it, so their d0*(d0-1)
//    are together at most d*(d-1). h is the largest width of head parallelism, mostly 1;
//  - longest: the best time of the longest sequence on any width >= d0, + micro_batch;
//  - wide: the sum of the best times of sequences with d0 > ranks/2, which cannot overlap.
// The last two on the fastest rank. They hold for plans whose groups split heads as cost.heads
// allows. Integer arithmetic: the same bits on every machine. InvalidArgument: a coefficient or
// speed out of range, or too many tokens.
absl::StatusOr<PlanCertificate> Certify(const StepPlan& plan, const CostModel& cost);

// "area", "longest" or "wide": the bound that the lower bound equals (the first of them, if
// several).
const char* BindingBound(const PlanCertificate& certificate);

// K and V tokens that ring attention sends in one forward pass of one layer: a member's share, d -
// 1 times, half of it once it has passed member 0 (three quarters of 2*(d-1)*s/d tokens on average:
// 1.5*d*(d-1) of the sequence's 2d parts). Where heads are split by h, rings of d / h members move
// an h-th of each token; what members exchange for heads stays inside nodes and does not count.
struct RingTraffic {
  double tokens = 0;
  double cross_node_tokens = 0;  // of these, between ranks of different nodes
};
// Rank r is on node r / ranks_per_node; 0: all on one node.
RingTraffic RingTrafficOf(const StepPlan& plan, int ranks_per_node);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_CERTIFICATE_H_
