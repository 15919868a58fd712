// Refined schedules (arXiv 2310.07831): the shape that is best for the gradient norms of an earlier
// run of the same job. Pure functions over vectors.
#ifndef LONGSPAN_OPTIM_REFINE_H_
#define LONGSPAN_OPTIM_REFINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

// Which norm of the gradient was recorded. SGD: l2, weights G^-2. Adam and its kin: l1, weights
// G^-1, as in Adam's geometry l1 plays the part of the squared l2 norm.
enum class GradientNorm { kL1, kL2 };

struct RefineOptions {
  GradientNorm norm = GradientNorm::kL1;
  int64_t steps = 0;          // updates of the new run; 0: as many as there are norms
  double filter_share = 0.1;  // tau, in [0, 1]: width of the median filter over the run
  double blend = 1;           // a, in [0, 1]: refined^a * linear^(1-a)
  // The arithmetic of the published scripts, for comparisons: no cleaning, floor, guards or blend,
  // their padding, and a last factor of 0. As many steps as norms.
  bool compatible = false;
};

struct RefinedSchedule {
  std::vector<double> factors;  // (steps), of the peak: the largest is 1
  std::vector<double> norms;    // (steps): cleaned, filtered, re-timed
  double headroom = 0;          // what the bound can gain over linear, from 0 to 1
  double effective_share = 1;   // (sum w)^2 / (steps * sum w^2)
  double largest_weight = 0;    // of one step, as a share of all weight
  int64_t peak_step = 0;        // where the refined shape has its maximum
  int64_t interpolated = 0;     // norms that were missing or not finite
  std::string fallback;  // not empty: why `factors` are linear instead; the rest is of the norms
};

// norms: of consecutive updates, > 0; NaN and infinities are taken for missing, single zeros are
// lifted by the floor. Scaling all norms changes nothing; flat norms give (steps - t) / steps to
// the bit. InvalidArgument: options out of range, or norms that no schedule can be made of: none,
// negative ones, half or more of them zero; with `compatible`, any that is not finite or zero.
absl::StatusOr<RefinedSchedule> Refine(const std::vector<double>& norms,
                                       const RefineOptions& options);

// The optimal shape for weights w_0 ... w_{T-1} > 0, of largest factor 1: w_t * sum_{p > t} w_p,
// with w_T = w_{T-1} (`repeat_last`) or without a w_T, which makes the last factor 0.
std::vector<double> OptimalFactors(const std::vector<double>& weights, bool repeat_last = true);

// The same backwards: weights, up to a common factor, for which `factors` (T, >= 0, the last > 0)
// are the optimal shape.
std::vector<double> WeightsOf(const std::vector<double>& factors);

// 1 - 1 / sqrt(mean(1/w) * mean(w)): from 0, flat norms, to 1.
double Headroom(const std::vector<double>& weights);

// G^-2 or G^-1.
std::vector<double> WeightsFromNorms(const std::vector<double>& norms, GradientNorm norm);

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_REFINE_H_
