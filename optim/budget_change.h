// What becomes of a schedule when a run that is under way gets another number of updates.
#ifndef LONGSPAN_OPTIM_BUDGET_CHANGE_H_
#define LONGSPAN_OPTIM_BUDGET_CHANGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "optim/schedule.h"

namespace longspan {

enum class BudgetChange {
  kRetime,  // the best rest for the last-iterate bound, given the rates already used
  kHold,    // the last rate used, to the end
  kFinish,  // from the last rate used straight down to zero
};

// The plan for `steps` updates of a run that has made `done` of them with `old` plan: a table whose
// first `done` rates are those that were used. InvalidArgument: done > steps or old.steps();
// nothing used yet to hold or finish.
//
// kRetime: the rest has the shape that is optimal for the norms expected there: those for which a
// refined plan was made, re-timed, and flat ones otherwise. It is scaled by the number c that
// minimises D^2 A + B over the rates used and the rest (last_iterate_bound.h), with D^2 = B/A of
// the old plan at its own rates: the distance for which its peak was the best.
absl::StatusOr<Schedule> Replan(const Schedule& old, int64_t done, int64_t steps,
                                BudgetChange change);

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_BUDGET_CHANGE_H_
