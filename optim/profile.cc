#include "optim/profile.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

using Parameters = ProfileParameters;
using Point = ProfilePoint;

constexpr double kPi = 3.14159265358979323846;

double Wsd(const Point& point, const Parameters& parameters) {
  const int64_t falling = std::llround(parameters.cooldown * static_cast<double>(point.steps));
  const int64_t fallen = point.t - (point.steps - falling);
  if (fallen <= 0) return 1;
  const double u = static_cast<double>(fallen) / static_cast<double>(falling);
  return 1 - (parameters.cooldown_shape == "sqrt" ? std::sqrt(u) : u);
}

double InverseSqrt(const Point& point, const Parameters&) {
  const double w = static_cast<double>(std::max<int64_t>(point.warmup_steps, 1));
  return std::sqrt(w / (w + static_cast<double>(point.t)));
}

double Step(const Point& point, const Parameters& parameters) {
  double factor = 1;
  for (const double share : parameters.milestones) {
    // Rounded: 0.07 * 100 is a little above 7.
    if (point.t >= std::llround(share * static_cast<double>(point.steps)))
      factor *= parameters.milestone_factor;
  }
  return factor;
}

absl::Status BadParameter(const char* key, double value, const char* rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("schedule.", key, " is ", value, "; it must be ", rule));
}

}  // namespace

// Conditions are written so that NaN fails them.
absl::Status Check(const ProfileParameters& p) {
  if (!(p.rex_b >= 0 && p.rex_b < 1)) return BadParameter("rex_b", p.rex_b, "in [0, 1)");
  if (!(p.cooldown > 0 && p.cooldown <= 1)) {
    return BadParameter("cooldown", p.cooldown, "a share of the steps, above 0 and at most 1");
  }
  if (p.cooldown_shape != "linear" && p.cooldown_shape != "sqrt") {
    return absl::InvalidArgumentError(absl::StrCat("schedule.cooldown_shape is \"",
                                                   p.cooldown_shape,
                                                   "\"; it must be \"linear\" or \"sqrt\""));
  }
  if (!(p.power > 0 && std::isfinite(p.power))) {
    return BadParameter("power", p.power, "positive and finite");
  }
  if (!(p.decay >= 0 && std::isfinite(p.decay))) {
    return BadParameter("decay", p.decay, "finite and not negative");
  }
  double last = 0;
  for (const double share : p.milestones) {
    if (!(share > last && share < 1)) {
      return BadParameter("milestones", share,
                          "a share of the steps below 1, above the one before");
    }
    last = share;
  }
  if (!(p.milestone_factor > 0 && std::isfinite(p.milestone_factor))) {
    return BadParameter("milestone_factor", p.milestone_factor, "positive and finite");
  }
  return absl::OkStatus();
}

const std::vector<Profile>& Profiles() {
  static const auto* const profiles = new std::vector<Profile>{
      {"constant", [](const Point&, const Parameters&) { return 1.0; }},
      {"linear", [](const Point& point, const Parameters&) { return point.z(); }},
      {"rex",
       [](const Point& point, const Parameters& parameters) {
         const double b = parameters.rex_b, z = point.z();
         return z / ((1 - b) + b * z);
       }},
      {"cosine", [](const Point& point,
                    const Parameters&) { return (1 + std::cos(kPi * (1 - point.z()))) / 2; }},
      {"wsd", Wsd},
      {"inverse-sqrt", InverseSqrt},
      {"polynomial",
       [](const Point& point, const Parameters& parameters) {
         return std::pow(point.z(), parameters.power);
       }},
      {"exponential",
       [](const Point& point, const Parameters& parameters) {
         return std::exp(-parameters.decay * (1 - point.z()));
       }},
      {"step", Step},
  };
  return *profiles;
}

const Profile* FindProfile(const std::string& kind) {
  for (const Profile& profile : Profiles()) {
    if (kind == profile.kind) return &profile;
  }
  return nullptr;
}

}  // namespace longspan
