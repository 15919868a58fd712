// What one small all-reduce a step carries, and what follows from it: gradient norms, the clip
// factor, and whether all ranks made the same plan. Pure functions over host values.
#ifndef LONGSPAN_OPTIM_GRADIENT_NORMS_H_
#define LONGSPAN_OPTIM_GRADIENT_NORMS_H_

#include <array>
#include <cstdint>

namespace longspan {

// Places in the f64 vector of kStepSums values that all ranks sum once a step. The first three are
// in the order of GradientStatistics, so AccumulateGradientStatistics writes to them directly.
enum StepSum : int {
  kGradientL1Sum = 0,         // of |g|, g: the unscaled gradient sums of this rank's shard
  kGradientSquaredL2Sum = 1,  // of g^2
  kNonFiniteSum = 2,          // count of non-finite g
  kLossSum = 3,               // of token losses, unscaled
  kStopVotesSum = 4,          // ranks that a stop signal has reached
  kPlanHashSums = 5,          // eight places, see WritePlanHash
  kStepSums = 13,
};
inline constexpr int kGradientStatistics = 3;

using StepSumVector = std::array<double, kStepSums>;

// Writes the plan's hash in a form whose sums over ranks tell whether all are equal: its four
// 16-bit digits and their squares, which f64 sums exactly.
void WritePlanHash(uint64_t hash, StepSumVector& values);
// From the summed vector: whether every one of `ranks` ranks (at most 2^20) wrote the same hash.
// The same answer on every rank. n * sum(x^2) = (sum x)^2 holds for equal x alone (Cauchy-Schwarz).
bool PlanHashesAgree(const StepSumVector& sums, int ranks);

// Norms of the global gradient, over its finite elements, before clipping.
struct GradientNorms {
  double l1 = 0;
  double l2 = 0;
  int64_t non_finite = 0;
};

// From the summed vector and the step's `targets` N > 0: gradients are sums over tokens, so norms
// divide by N.
GradientNorms NormsOf(const StepSumVector& sums, int64_t targets);

// PyTorch's min(1, clip / (norm + 1e-6)). `clip` 0: no clipping, 1.
double ClipFactor(double norm, double clip);

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_GRADIENT_NORMS_H_
