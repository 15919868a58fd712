// Planner: lengths -> StepPlan. A pure function of its request: every rank that plans reaches the
// identical plan.
#ifndef LONGSPAN_PARALLEL_PLANNER_H_
#define LONGSPAN_PARALLEL_PLANNER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/cost_model.h"
#include "parallel/plan.h"
#include "parallel/plan_outline.h"

namespace longspan {

struct PlanRequest {
  std::vector<int64_t> lengths;  // tokens, each >= 1
  int ranks = 1;
  int64_t micro_batch_tokens = 0;  // even, >= 2
  CostModel cost;                  // all zero: only tokens count; says which heads may be split
  int ranks_per_node = 0;          // rank r is on node r / ranks_per_node; 0: not known
};

// What every policy asks of its request: InvalidArgument unless ranks, capacity and lengths are in
// range, and every sequence fits ranks * micro_batch_tokens. At most 2^36 tokens.
absl::Status CheckRequest(const PlanRequest& request);

// Thread-safe: planners have no state.
class Planner {
 public:
  virtual ~Planner() = default;
  virtual std::string name() const = 0;

  // A plan that Validate accepts, with its certificate. InvalidArgument if a sequence is longer
  // than ranks * micro_batch_tokens: the message names the sequence, its length and the capacity
  // that would hold it; or if a coefficient of the cost model is out of range.
  absl::StatusOr<StepPlan> Plan(const PlanRequest& request) const;

  // The same without token ranges: simulations compare large ones.
  absl::StatusOr<PlanOutline> Outline(const PlanRequest& request) const;

 protected:
  // `request` has been checked. Decides in integers. An error: what the policy does not plan.
  virtual absl::StatusOr<PlanOutline> Decide(const PlanRequest& request,
                                             const IntegerCostModel& cost) const = 0;
};

// By policy name; InvalidArgument lists the policies there are.
absl::StatusOr<std::unique_ptr<Planner>> CreatePlanner(const std::string& policy);
// Their names, for help texts; the default one first.
std::vector<std::string> PlannerPolicies();

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_PLANNER_H_
