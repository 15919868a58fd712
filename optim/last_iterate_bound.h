// The bound on the last iterate's expected error (arXiv 2310.07831) and what follows from it: the
// best peak of a shape, and shapes compared with each other.
#ifndef LONGSPAN_OPTIM_LAST_ITERATE_BOUND_H_
#define LONGSPAN_OPTIM_LAST_ITERATE_BOUND_H_

#include <string>
#include <vector>

#include "optim/refine.h"
#include "optim/schedule.h"

namespace longspan {

// error <= D^2 A + B for rates s_t and an initial distance D. Rates times c make A/c and B*c, so
// the best peak is proportional to D sqrt(A/B), and the bound there is D * 2 sqrt(A B).
struct LastIterateBound {
  double a = 0, b = 0;
  double best_peak() const;  // of rates with these factors, for D = 1
  double value() const;      // at the best peak, for D = 1
};

// With tail_t = sum_{j>=t} s_j and q_t = sum_{j>=t} s_j^2 G_j^2: A = 1/(2 tail_0), B =
// q_0/(2 tail_0) + 1/2 sum_{t<T-1} s_t q_t/(tail_t tail_{t+1}). rates: (T), >= 0, one or more > 0;
// zeros at the end count for nothing. squared_norms: (T), G^2 for SGD, the l1 norm for Adam.
LastIterateBound BoundOf(const std::vector<double>& rates,
                         const std::vector<double>& squared_norms);

// One shape on the norms of a run, relative to the schedule that the run used.
struct ShapeBound {
  std::string shape;     // "linear"; "used" for the run's own
  double bound = 1;      // ratio; below 1 is better
  double best_peak = 1;  // ratio: converts a tuned peak
};

struct Explanation {
  std::vector<ShapeBound> shapes;  // best first
  double headroom = 0;
  // Norms for which the schedule used would be the best, at 0, 25, 50, 75 and 100% of the run,
  // relative to the middle. Empty where none exist.
  std::vector<double> implied_norms;
  std::string optimal_for;  // that in words
  std::string advice;       // one sentence
  std::string fallback;     // why no refined shape is offered; "" if it is
};

// norms, rates: (T), recorded by one run; options.steps is not used. warmup_steps: of the run;
// other shapes are compared with the same. Refine's errors; InvalidArgument when no rate is
// positive.
absl::StatusOr<Explanation> Explain(const std::vector<double>& norms,
                                    const std::vector<double>& rates, int64_t warmup_steps,
                                    const RefineOptions& options);

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_LAST_ITERATE_BOUND_H_
