#include "optim/portable_shape.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "kernels/device/check.h"
#include "optim/profile.h"

namespace longspan {
namespace {

constexpr int64_t kWarmupChoices = 100;  // shares of the run, in percent up to 60
constexpr int64_t kSamples = 500;
constexpr double kLeastPower = 0.1, kMostPower = 10;

// Mean squared error of a warm-up and power, over at most kSamples of the steps.
double ErrorOf(const std::vector<double>& factors, int64_t warmup, double power) {
  const int64_t steps = static_cast<int64_t>(factors.size());
  const int64_t samples = std::min(steps, kSamples);
  double sum = 0;
  for (int64_t i = 0; i < samples; ++i) {
    const int64_t t = i * steps / samples;
    const double fit = t < warmup
                           ? static_cast<double>(t + 1) / static_cast<double>(warmup)
                           : std::pow(ProfilePoint{t - warmup, steps - warmup, warmup}.z(), power);
    sum += (fit - factors[t]) * (fit - factors[t]);
  }
  return sum / static_cast<double>(samples);
}

// Golden-section search over log power: the error has one valley for each warm-up.
double BestPower(const std::vector<double>& factors, int64_t warmup) {
  constexpr double kGolden = 0.61803398874989484820;
  double low = std::log(kLeastPower), high = std::log(kMostPower);
  while (high - low > 1e-4) {
    const double left = high - kGolden * (high - low), right = low + kGolden * (high - low);
    if (ErrorOf(factors, warmup, std::exp(left)) < ErrorOf(factors, warmup, std::exp(right))) {
      high = right;
    } else {
      low = left;
    }
  }
  return std::exp((low + high) / 2);
}

double VarianceOf(const std::vector<double>& factors) {
  const double n = static_cast<double>(factors.size());
  double mean = 0, sum = 0;
  for (const double factor : factors) mean += factor / n;
  for (const double factor : factors) sum += (factor - mean) * (factor - mean);
  return sum / n;
}

}  // namespace

PortableShape PortableShapeOf(const std::vector<double>& factors) {
  LONGSPAN_CHECK(!factors.empty(), "a schedule of at least one step");
  const int64_t steps = static_cast<int64_t>(factors.size());
  PortableShape best;
  double least = HUGE_VAL;
  int64_t tried = -1;
  for (int64_t percent = 0; percent <= 60; ++percent) {
    const int64_t warmup = percent * steps / kWarmupChoices;
    if (warmup == tried || warmup >= steps) continue;
    tried = warmup;
    const double power = BestPower(factors, warmup), error = ErrorOf(factors, warmup, power);
    if (error >= least) continue;
    least = error;
    best.warmup_steps = warmup;
    best.power = power;
  }
  const double variance = VarianceOf(factors);
  best.r2 = variance > 0 ? 1 - least / variance : 1;
  best.text =
      absl::StrFormat("%.0f%% warm-up, then (1-t)^%.2g, R2 %.3f",
                      100 * static_cast<double>(best.warmup_steps) / static_cast<double>(steps),
                      best.power, best.r2);
  return best;
}

}  // namespace longspan
