#include "optim/last_iterate_bound.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/device/check.h"

namespace longspan {
namespace {

constexpr char kUsed[] = "used";
// Shapes whose bounds differ by less are as good as each other.
constexpr double kNoticeable = 0.01;

double NormOf(double weight, GradientNorm norm) {
  return norm == GradientNorm::kL1 ? 1 / weight : 1 / std::sqrt(weight);
}

// Norms for which `rates` would be optimal, at five places. A last rate of 0 would follow from an
// infinite norm.
std::vector<double> ImpliedNorms(std::vector<double> rates, GradientNorm norm) {
  if (!(rates.back() > 0)) return {};
  const double largest = *std::max_element(rates.begin(), rates.end());
  for (double& rate : rates) rate /= largest;
  const std::vector<double> weights = WeightsOf(rates);
  const size_t last = weights.size() - 1;
  std::vector<double> norms;
  for (size_t quarter = 0; quarter <= 4; ++quarter) {
    norms.push_back(NormOf(weights[last * quarter / 4], norm) / NormOf(weights[last / 2], norm));
  }
  return norms;
}

std::string InWords(const std::vector<double>& norms) {
  if (norms.empty()) return "no norms: its last rate is 0";
  const auto [least, most] = std::minmax_element(norms.begin(), norms.end());
  std::string direction = "flat norms";
  if (*most > 1.1 * *least) {
    const bool rising = std::is_sorted(norms.begin(), norms.end());
    const bool falling = std::is_sorted(norms.rbegin(), norms.rend());
    direction = rising ? "rising norms" : falling ? "falling norms" : "norms that turn";
  }
  return absl::StrFormat(
      "%s: %.2f, %.2f, 1, %.2f, %.2f of the middle one at 0, 25, 50, 75 and 100%% of the run",
      direction, norms[0], norms[1], norms[3], norms[4]);
}

std::string Advise(const Explanation& explanation) {
  const ShapeBound& best = explanation.shapes.front();
  const double gain = 1 - best.bound;
  if (best.shape == kUsed || gain < kNoticeable) {
    return "Keep the schedule: no other shape has a bound noticeably lower on these norms.";
  }
  return absl::StrFormat(
      "Try %s with the peak times %.2f: its bound is %.1f%% lower than that of the schedule used.",
      best.shape, best.best_peak, 100 * gain);
}

}  // namespace

double LastIterateBound::best_peak() const { return std::sqrt(a / b); }
double LastIterateBound::value() const { return 2 * std::sqrt(a * b); }

LastIterateBound BoundOf(const std::vector<double>& rates,
                         const std::vector<double>& squared_norms) {
  LONGSPAN_CHECK(rates.size() == squared_norms.size(), "one norm for each rate");
  double tail = 0, q = 0, sum = 0;
  for (size_t t = rates.size(); t-- > 0;) {
    const double after = tail;
    tail += rates[t];
    q += rates[t] * rates[t] * squared_norms[t];
    // The last update that moves anything has no term of its own.
    if (after > 0) sum += rates[t] * q / (tail * after);
  }
  LONGSPAN_CHECK(tail > 0, "a rate above 0");
  return {.a = 1 / (2 * tail), .b = q / (2 * tail) + sum / 2};
}

absl::StatusOr<Explanation> Explain(const std::vector<double>& norms,
                                    const std::vector<double>& rates, int64_t warmup_steps,
                                    const RefineOptions& options) {
  LONGSPAN_CHECK(norms.size() == rates.size(), "one norm for each rate");
  RefineOptions refine_options = options;
  refine_options.steps = 0;
  const absl::StatusOr<RefinedSchedule> refined = Refine(norms, refine_options);
  if (!refined.ok()) return refined.status();
  const double peak = *std::max_element(rates.begin(), rates.end());
  if (!(peak > 0)) return absl::InvalidArgumentError("the run's rates are all zero");

  // In units of the largest norm and rate: only ratios count.
  const double scale = *std::max_element(refined->norms.begin(), refined->norms.end());
  std::vector<double> squared;
  for (const double norm : refined->norms) {
    squared.push_back(options.norm == GradientNorm::kL1 ? norm / scale
                                                        : norm / scale * (norm / scale));
  }
  std::vector<double> factors = rates;
  for (double& factor : factors) factor /= peak;
  const LastIterateBound used = BoundOf(factors, squared);

  Explanation explanation;
  explanation.headroom = refined->headroom;
  explanation.fallback = refined->fallback;
  const auto add = [&](const std::string& shape, const std::vector<double>& of_shape) {
    const LastIterateBound bound = BoundOf(of_shape, squared);
    explanation.shapes.push_back(
        {shape, bound.value() / used.value(), bound.best_peak() / used.best_peak()});
  };
  add(kUsed, factors);
  if (refined->fallback.empty()) add("refined", refined->factors);
  for (const Profile& profile : Profiles()) {
    ScheduleConfig config;
    config.kind = profile.kind;
    config.peak = 1;
    config.steps = static_cast<int64_t>(norms.size());
    config.warmup = static_cast<double>(std::min(warmup_steps, config.steps));
    add(profile.kind, Schedule::Create(config)->Rates());
  }
  std::stable_sort(explanation.shapes.begin(), explanation.shapes.end(),
                   [](const ShapeBound& x, const ShapeBound& y) { return x.bound < y.bound; });
  explanation.implied_norms = ImpliedNorms(factors, options.norm);
  explanation.optimal_for = InWords(explanation.implied_norms);
  explanation.advice = Advise(explanation);
  return explanation;
}

}  // namespace longspan
