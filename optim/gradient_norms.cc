#include "optim/gradient_norms.h"

#include <algorithm>
#include <cmath>

#include "kernels/device/check.h"

namespace longspan {
namespace {

constexpr int kDigits = 4;
constexpr int kDigitBits = 16;

}  // namespace

void WritePlanHash(uint64_t hash, StepSumVector& values) {
  for (int i = 0; i < kDigits; ++i) {
    const double digit = static_cast<double>((hash >> (i * kDigitBits)) & 0xffff);
    values[kPlanHashSums + 2 * i] = digit;
    values[kPlanHashSums + 2 * i + 1] = digit * digit;
  }
}

bool PlanHashesAgree(const StepSumVector& sums, int ranks) {
  LONGSPAN_CHECK(ranks >= 1 && ranks <= 1 << 20, "the sums must be exact in f64");
  for (int i = 0; i < kDigits; ++i) {
    const double sum = sums[kPlanHashSums + 2 * i];
    const double squares = sums[kPlanHashSums + 2 * i + 1];
    // A rank that failed sends what it likes; a NaN must not reach the conversion below.
    const double most = static_cast<double>(ranks) * 65536;
    if (!(sum >= 0 && sum < most && squares >= 0 && squares < most * 65536)) return false;
    // n * sum(x^2) < 2^20 * 2^52 passes 64 bits.
    __extension__ using Wide = unsigned __int128;
    const Wide whole = static_cast<uint64_t>(sum);
    if (static_cast<Wide>(ranks) * static_cast<uint64_t>(squares) != whole * whole) return false;
  }
  return true;
}

GradientNorms NormsOf(const StepSumVector& sums, int64_t targets) {
  LONGSPAN_CHECK(targets > 0, "a step has targets");
  const double n = static_cast<double>(targets);
  return {.l1 = sums[kGradientL1Sum] / n,
          .l2 = std::sqrt(sums[kGradientSquaredL2Sum]) / n,
          .non_finite = static_cast<int64_t>(sums[kNonFiniteSum])};
}

double ClipFactor(double norm, double clip) {
  LONGSPAN_CHECK(clip >= 0, "a clip threshold is not negative");
  return clip == 0 ? 1 : std::min(1.0, clip / (norm + 1e-6));
}

}  // namespace longspan
