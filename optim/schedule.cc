#include "optim/schedule.h"

#include <charconv>
#include <cmath>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/device/check.h"

namespace longspan {
namespace {

constexpr char kRefined[] = "refined";
constexpr char kTable[] = "table";

// The shortest text that reads back to the same bits.
std::string Shortest(double value) {
  char text[32];
  return std::string(text, std::to_chars(text, std::end(text), value).ptr);
}

absl::Status OutOfRange(const char* key, double value, const char* rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("schedule.", key, " is ", Shortest(value), "; it must be ", rule));
}

// Conditions are written so that NaN fails them.
absl::Status CheckValues(const ScheduleConfig& config, bool list) {
  if (!list) {
    return config.values.empty() ? absl::OkStatus()
                                 : absl::InvalidArgumentError(absl::StrCat(
                                       "schedule: ", config.kind, " takes no list of values"));
  }
  if (static_cast<int64_t>(config.values.size()) != config.steps) {
    return absl::InvalidArgumentError(absl::StrCat("schedule: ", config.kind, " has ",
                                                   config.values.size(), " values for a run of ",
                                                   config.steps, " steps"));
  }
  const double most = config.kind == kRefined ? 1 : HUGE_VAL;
  for (size_t i = 0; i < config.values.size(); ++i) {
    const double value = config.values[i];
    if (!(value >= 0 && value <= most && std::isfinite(value))) {
      return absl::InvalidArgumentError(
          absl::StrCat("schedule: value ", i + 1, " of ", config.kind, " is ", Shortest(value),
                       config.kind == kRefined ? "; factors lie in [0, 1]"
                                               : "; rates are finite and not negative"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Schedule> Schedule::Create(const ScheduleConfig& config) {
  Schedule schedule;
  schedule.config_ = config;
  schedule.profile_ = FindProfile(config.kind);
  const bool list = config.kind == kRefined || config.kind == kTable;
  if (schedule.profile_ == nullptr && !list) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule.kind \"", config.kind,
                     "\" is unknown; there are: ", absl::StrJoin(Kinds(), ", ")));
  }
  if (config.steps < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule: a run of ", config.steps, " steps; it must have at least one"));
  }
  if (config.kind != kTable && !(config.peak > 0 && std::isfinite(config.peak))) {
    return OutOfRange("peak", config.peak, "positive and finite");
  }
  if (!(config.floor >= 0 && config.floor <= 1)) {
    return OutOfRange("floor", config.floor, "a share of the peak, from 0 to 1");
  }
  const double steps = static_cast<double>(config.steps);
  if (!(config.warmup >= 0 && config.warmup <= steps)) {
    return OutOfRange("warmup", config.warmup,
                      "a share of the steps below 1, or a number of steps within the run");
  }
  if (config.warmup >= 1 && config.warmup != std::floor(config.warmup)) {
    return OutOfRange("warmup", config.warmup, "a whole number of steps, or a share below 1");
  }
  if (absl::Status status = Check(config.profile); !status.ok()) return status;
  if (absl::Status status = Check(config.sampling); !status.ok()) return status;
  if (absl::Status status = CheckValues(config, list); !status.ok()) return status;
  if (!list) {
    schedule.warmup_steps_ =
        std::llround(config.warmup < 1 ? config.warmup * steps : config.warmup);
  }
  return schedule;
}

std::vector<std::string> Schedule::Kinds() {
  std::vector<std::string> kinds;
  for (const Profile& profile : Profiles()) kinds.push_back(profile.kind);
  kinds.insert(kinds.end(), {kRefined, kTable});
  return kinds;
}

double Schedule::Rate(int64_t step) const {
  LONGSPAN_CHECK(step >= 0 && step < config_.steps, "a step of the run");
  if (step < warmup_steps_) {
    return config_.peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps_);
  }
  const int64_t steps = config_.steps - warmup_steps_;
  const int64_t t = LastRefresh(config_.sampling, step - warmup_steps_, steps);
  if (config_.kind == kTable) return config_.values[t];
  const double factor = profile_ == nullptr
                            ? config_.values[t]
                            : profile_->factor({t, steps, warmup_steps_}, config_.profile);
  return config_.peak * (config_.floor + (1 - config_.floor) * factor);
}

std::vector<double> Schedule::Rates() const {
  std::vector<double> rates(config_.steps);
  for (int64_t step = 0; step < config_.steps; ++step) rates[step] = Rate(step);
  return rates;
}

}  // namespace longspan
