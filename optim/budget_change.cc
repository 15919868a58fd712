#include "optim/budget_change.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "optim/last_iterate_bound.h"
#include "optim/refine.h"

namespace longspan {
namespace {

// Weights for which the plan's shape is optimal; flat where it was not made from norms.
std::vector<double> ExpectedWeights(const Schedule& plan) {
  const std::vector<double>& factors = plan.config().values;
  const bool refined = plan.config().kind == "refined" &&
                       std::all_of(factors.begin(), factors.end(), [](double f) { return f > 0; });
  return refined ? WeightsOf(factors) : std::vector<double>(plan.steps(), 1.0);
}

// Over `steps` updates, by progress.
std::vector<double> Stretched(const std::vector<double>& weights, int64_t steps) {
  const double ratio = static_cast<double>(weights.size()) / static_cast<double>(steps);
  std::vector<double> stretched(steps);
  for (int64_t t = 0; t < steps; ++t) {
    const double position = (static_cast<double>(t) + 0.5) * ratio;
    stretched[t] = weights[std::min(weights.size() - 1, static_cast<size_t>(position))];
  }
  return stretched;
}

std::vector<double> Inverse(std::vector<double> values) {
  for (double& value : values) value = 1 / value;
  return values;
}

// The argument in [low, high] of the least value: a grid, then golden section about its best point.
template <typename Function>
double ArgumentOfMinimum(const Function& function, double low, double high) {
  constexpr int kGrid = 120;
  constexpr double kGolden = 0.61803398874989484820;
  const double width = (high - low) / kGrid;
  double best = low, least = HUGE_VAL;
  for (int i = 0; i <= kGrid; ++i) {
    const double x = low + i * width, value = function(x);
    if (value < least) {
      least = value;
      best = x;
    }
  }
  low = best - width;
  high = best + width;
  while (high - low > 1e-7) {
    const double left = high - kGolden * (high - low), right = low + kGolden * (high - low);
    if (function(left) < function(right)) {
      high = right;
    } else {
      low = left;
    }
  }
  return (low + high) / 2;
}

// Appends the rest to the rates used.
void AppendRetimed(const Schedule& old, int64_t steps, std::vector<double>& rates) {
  const std::vector<double> old_rates = old.Rates();
  const double peak = *std::max_element(old_rates.begin(), old_rates.end());
  const std::vector<double> old_weights = ExpectedWeights(old);
  const std::vector<double> weights = Stretched(old_weights, steps);
  const std::vector<double> squared_norms = Inverse(weights);
  const LastIterateBound before = BoundOf(old_rates, Inverse(old_weights));
  const double squared_distance = before.b / before.a;

  const size_t done = rates.size();
  const std::vector<double> rest = OptimalFactors(
      std::vector<double>(weights.begin() + static_cast<int64_t>(done), weights.end()));
  rates.resize(steps);
  const auto scale = [&](double log_factor) {
    for (size_t i = 0; i < rest.size(); ++i)
      rates[done + i] = peak * std::exp(log_factor) * rest[i];
  };
  const double best = ArgumentOfMinimum(
      [&](double log_factor) {
        scale(log_factor);
        const LastIterateBound bound = BoundOf(rates, squared_norms);
        return squared_distance * bound.a + bound.b;
      },
      std::log(1e-6), std::log(1e2));
  scale(best);
}

}  // namespace

absl::StatusOr<Schedule> Replan(const Schedule& old, int64_t done, int64_t steps,
                                BudgetChange change) {
  if (done < 0 || done > steps || done > old.steps()) {
    return absl::InvalidArgumentError(absl::StrCat("the run has made ", done,
                                                   " updates already: run.steps = ", steps,
                                                   " cannot be its budget"));
  }
  if (done == 0 && change != BudgetChange::kRetime) {
    return absl::InvalidArgumentError("no rate has been used yet: there is none to go on from");
  }
  ScheduleConfig config;
  config.kind = "table";
  config.peak = old.config().peak;
  config.steps = steps;
  for (int64_t t = 0; t < done; ++t) config.values.push_back(old.Rate(t));
  const int64_t left = steps - done;
  const double last_used = done > 0 ? config.values.back() : 0;
  const char* name = "";
  switch (change) {
    case BudgetChange::kRetime:
      name = "re-timed";
      if (left > 0) AppendRetimed(old, steps, config.values);
      break;
    case BudgetChange::kHold:
      name = "held";
      config.values.resize(steps, last_used);
      break;
    case BudgetChange::kFinish:
      name = "finished";
      for (int64_t i = 0; i < left; ++i) {
        const double z = static_cast<double>(left - i) / static_cast<double>(left);
        config.values.push_back(last_used * z);
      }
      break;
  }
  config.note = absl::StrCat(old.config().kind, " over ", old.steps(), " steps, ", name,
                             " after step ", done, " to end at ", steps);
  return Schedule::Create(config);
}

}  // namespace longspan
