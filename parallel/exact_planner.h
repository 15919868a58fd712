// ExactPlanner, policy "exact": the least makespan there is, for tiny batches. The oracle of the
// other policies' tests.
#ifndef LONGSPAN_PARALLEL_EXACT_PLANNER_H_
#define LONGSPAN_PARALLEL_EXACT_PLANNER_H_

#include <string>

#include "absl/status/statusor.h"
#include "parallel/planner.h"

namespace longspan {

// Branch and bound over all plans of the format: any widths and ranks, several sequences in one
// ring, whole sequences beside a ring's slices. Works it out by placing micro-batches and rings one
// after another at the end of their ranks' lists.
// InvalidArgument beyond kMaxExactRanks ranks or kMaxExactSequences sequences, or for ranks of
// different speeds; ResourceExhausted if the search does not end within kMaxExactStates states.
class ExactPlanner : public Planner {
 public:
  std::string name() const override { return "exact"; }

 protected:
  absl::StatusOr<PlanOutline> Decide(const PlanRequest& request,
                                     const IntegerCostModel& cost) const override;
};

inline constexpr int kMaxExactRanks = 8;
inline constexpr int kMaxExactSequences = 12;
inline constexpr int64_t kMaxExactStates = 20'000'000;

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_EXACT_PLANNER_H_
