#include "optim/refine.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/device/check.h"
#include "optim/median_filter.h"

namespace longspan {
namespace {

constexpr double kFloorOfMedian = 0.25;
constexpr double kLeastEffectiveShare = 0.2;
constexpr double kLargestWeight = 0.05;  // of one step; 5/T in short runs
constexpr double kLatestPeak = 0.5;      // share of the run

absl::Status CheckOptions(const RefineOptions& options, int64_t norms) {
  if (norms == 0) return absl::InvalidArgumentError("there are no gradient norms");
  if (options.steps < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a schedule of ", options.steps, " steps; it must have at least one"));
  }
  if (!(options.filter_share >= 0 && options.filter_share <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule.filter is ", options.filter_share, "; it must lie in [0, 1]"));
  }
  if (!(options.blend >= 0 && options.blend <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule.blend is ", options.blend, "; it must lie in [0, 1]"));
  }
  if (options.compatible && options.steps != 0 && options.steps != norms) {
    return absl::InvalidArgumentError(
        absl::StrCat("compatibility mode makes as many steps as there are norms: ", norms, ", not ",
                     options.steps));
  }
  return absl::OkStatus();
}

bool Present(double norm) { return std::isfinite(norm) && norm > 0; }

// The median of the present norms.
double ScaleOf(const std::vector<double>& norms) {
  std::vector<double> present;
  std::copy_if(norms.begin(), norms.end(), std::back_inserter(present), Present);
  return Median(std::move(present));
}

// Missing values from their neighbours in time, in log; those before the first and after the last
// take that one's. Zeros stay.
int64_t Interpolate(std::vector<double>& norms) {
  const int64_t n = static_cast<int64_t>(norms.size());
  int64_t filled = 0, before = -1, after = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (Present(norms[i])) before = i;
    if (std::isfinite(norms[i])) continue;
    after = std::max(after, i + 1);
    while (after < n && !Present(norms[after])) ++after;
    if (before >= 0 && after < n) {
      const double share = static_cast<double>(i - before) / static_cast<double>(after - before);
      norms[i] = std::exp(std::log(norms[before]) * (1 - share) + std::log(norms[after]) * share);
    } else {
      norms[i] = before >= 0 ? norms[before] : norms[after];
    }
    before = i;
    ++filled;
  }
  return filled;
}

int64_t FilterWidth(double share, int64_t norms) {
  return 2 * (static_cast<int64_t>(share * static_cast<double>(norms)) / 2) + 1;
}

// Steps 1 to 3 of the method: clean, floor, filter.
absl::StatusOr<std::vector<double>> Filtered(std::vector<double> norms, double filter_share,
                                             int64_t* interpolated) {
  const int64_t n = static_cast<int64_t>(norms.size());
  *interpolated = Interpolate(norms);
  // The very first norms are those of a network that knows nothing yet.
  const int64_t first = std::min(n - 1, std::max<int64_t>(2, n / 1000));
  std::fill(norms.begin(), norms.begin() + first, norms[first]);
  const double floor = kFloorOfMedian * Median(norms);
  if (!(floor > 0)) {
    return absl::InvalidArgumentError(
        "half of the gradient norms or more are zero: no schedule follows from them");
  }
  for (double& norm : norms) norm = std::max(norm, floor);
  return MedianFilter(norms, FilterWidth(filter_share, n), Padding::kSymmetric);
}

// Step 4: from n samples to `steps`, log G being linear in progress (i + 0.5) / n.
std::vector<double> Retimed(const std::vector<double>& norms, int64_t steps) {
  const int64_t n = static_cast<int64_t>(norms.size());
  std::vector<double> retimed(steps);
  for (int64_t t = 0; t < steps; ++t) {
    const double position =
        (static_cast<double>(t) + 0.5) * static_cast<double>(n) / static_cast<double>(steps) - 0.5;
    const double inside = std::clamp(position, 0.0, static_cast<double>(n - 1));
    const int64_t i = static_cast<int64_t>(inside);
    const double share = inside - static_cast<double>(i);
    retimed[t] = share == 0
                     ? norms[i]
                     : std::exp(std::log(norms[i]) * (1 - share) + std::log(norms[i + 1]) * share);
  }
  return retimed;
}

double Linear(int64_t t, int64_t steps) {
  return static_cast<double>(steps - t) / static_cast<double>(steps);
}

// Step 6. "": the shape may be used.
std::string FallbackReason(const RefinedSchedule& refined) {
  const int64_t steps = static_cast<int64_t>(refined.norms.size());
  if (!(refined.effective_share >= kLeastEffectiveShare)) {
    return absl::StrFormat("the weights are worth %.0f%% of the steps, and %.0f%% are needed",
                           100 * refined.effective_share, 100 * kLeastEffectiveShare);
  }
  const double largest = std::max(kLargestWeight, 5 / static_cast<double>(steps));
  if (refined.largest_weight > largest) {
    return absl::StrFormat("one step has %.1f%% of the weight, more than %.1f%%",
                           100 * refined.largest_weight, 100 * largest);
  }
  const double peak = static_cast<double>(refined.peak_step) / static_cast<double>(steps);
  if (peak > kLatestPeak) {
    return absl::StrFormat("its peak would come after %.0f%% of the run, later than half of it",
                           100 * peak);
  }
  return "";
}

void Measure(RefinedSchedule& refined, const std::vector<double>& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double squares = std::inner_product(weights.begin(), weights.end(), weights.begin(), 0.0);
  refined.headroom = Headroom(weights);
  refined.effective_share = sum * sum / (static_cast<double>(weights.size()) * squares);
  refined.largest_weight = *std::max_element(weights.begin(), weights.end()) / sum;
  refined.peak_step =
      std::max_element(refined.factors.begin(), refined.factors.end()) - refined.factors.begin();
}

}  // namespace

std::vector<double> WeightsFromNorms(const std::vector<double>& norms, GradientNorm norm) {
  std::vector<double> weights;
  weights.reserve(norms.size());
  for (const double g : norms) weights.push_back(norm == GradientNorm::kL1 ? 1 / g : 1 / (g * g));
  return weights;
}

std::vector<double> OptimalFactors(const std::vector<double>& weights, bool repeat_last) {
  LONGSPAN_CHECK(!weights.empty(), "a schedule of at least one step");
  std::vector<double> factors(weights.size());
  double tail = repeat_last ? weights.back() : 0;  // of the weights after t
  for (size_t t = weights.size(); t-- > 0;) {
    factors[t] = weights[t] * tail;
    tail += weights[t];
  }
  const double largest = *std::max_element(factors.begin(), factors.end());
  if (largest > 0) {
    for (double& factor : factors) factor /= largest;
  }
  return factors;
}

std::vector<double> WeightsOf(const std::vector<double>& factors) {
  LONGSPAN_CHECK(!factors.empty() && factors.back() > 0, "a last factor above 0");
  std::vector<double> weights(factors.size());
  double tail = std::sqrt(factors.back());
  for (size_t t = factors.size(); t-- > 0;) {
    weights[t] = factors[t] / tail;
    tail += weights[t];
  }
  return weights;
}

double Headroom(const std::vector<double>& weights) {
  double sum = 0, inverse_sum = 0;
  for (const double w : weights) {
    sum += w;
    inverse_sum += 1 / w;
  }
  const double n = static_cast<double>(weights.size());
  // Rounding may leave the product a little below 1.
  return std::max(0.0, 1 - 1 / std::sqrt(sum / n * (inverse_sum / n)));
}

absl::StatusOr<RefinedSchedule> Refine(const std::vector<double>& norms,
                                       const RefineOptions& options) {
  const int64_t n = static_cast<int64_t>(norms.size());
  if (absl::Status status = CheckOptions(options, n); !status.ok()) return status;
  for (int64_t i = 0; i < n; ++i) {
    if (norms[i] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("gradient norm ", i + 1, " is ", norms[i], "; norms are not negative"));
    }
    if (options.compatible && !Present(norms[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("gradient norm ", i + 1, " is ", norms[i],
                       "; compatibility mode cleans nothing, so all must be finite and positive"));
    }
  }
  if (std::none_of(norms.begin(), norms.end(), Present)) {
    return absl::InvalidArgumentError("no gradient norm is finite and positive");
  }
  // In units of the median, flat norms are exactly 1 and no square leaves the range of a double.
  const double scale = ScaleOf(norms);
  std::vector<double> scaled = norms;
  for (double& norm : scaled) norm /= scale;

  RefinedSchedule refined;
  const int64_t steps = options.steps == 0 ? n : options.steps;
  if (options.compatible) {
    refined.norms =
        MedianFilter(scaled, FilterWidth(options.filter_share, n), Padding::kNearestThenReflect);
  } else {
    absl::StatusOr<std::vector<double>> filtered =
        Filtered(std::move(scaled), options.filter_share, &refined.interpolated);
    if (!filtered.ok()) return filtered.status();
    refined.norms = Retimed(*filtered, steps);
  }
  const std::vector<double> weights = WeightsFromNorms(refined.norms, options.norm);
  refined.factors = OptimalFactors(weights, /*repeat_last=*/!options.compatible);
  Measure(refined, weights);
  for (double& norm : refined.norms) norm *= scale;
  if (!(std::isfinite(refined.headroom) && std::isfinite(refined.effective_share))) {
    return absl::InvalidArgumentError(
        "the gradient norms lie too far apart: no schedule follows from them");
  }
  if (options.compatible) return refined;

  refined.fallback = FallbackReason(refined);
  const double blend = refined.fallback.empty() ? options.blend : 0;
  if (blend == 1) return refined;
  for (int64_t t = 0; t < steps; ++t) {
    refined.factors[t] =
        blend == 0 ? Linear(t, steps)
                   : std::pow(refined.factors[t], blend) * std::pow(Linear(t, steps), 1 - blend);
  }
  const double largest = *std::max_element(refined.factors.begin(), refined.factors.end());
  for (double& factor : refined.factors) factor /= largest;
  return refined;
}

}  // namespace longspan
