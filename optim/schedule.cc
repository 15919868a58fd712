#include "optim/schedule.h"

#include <charconv>
#include <cmath>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/device/check.h"

namespace longspan {

// A shape: the factor of the peak at z, which falls from 1 to 1/T.
struct Schedule::Profile {
  const char* kind;
  double (*factor)(double z);
};

const Schedule::Profile Schedule::kProfiles[] = {
    {"constant", [](double) { return 1.0; }},
    {"linear", [](double z) { return z; }},
};

namespace {

// The shortest text that reads back to the same bits.
std::string Text(double value) {
  char text[32];
  return std::string(text, std::to_chars(text, std::end(text), value).ptr);
}

absl::Status OutOfRange(const char* key, double value, const char* rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("schedule.", key, " is ", Text(value), "; it must be ", rule));
}

}  // namespace

absl::StatusOr<Schedule> Schedule::Create(const ScheduleConfig& config) {
  Schedule schedule;
  schedule.config_ = config;
  for (const Profile& profile : kProfiles) {
    if (config.kind == profile.kind) schedule.profile_ = &profile;
  }
  if (schedule.profile_ == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule.kind \"", config.kind,
                     "\" is unknown; there are: ", absl::StrJoin(Kinds(), ", ")));
  }
  // Conditions are written so that NaN fails them.
  if (config.steps < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule: a run of ", config.steps, " steps; it must have at least one"));
  }
  if (!(config.peak > 0 && std::isfinite(config.peak))) {
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
  schedule.warmup_steps_ = std::llround(config.warmup < 1 ? config.warmup * steps : config.warmup);
  return schedule;
}

std::vector<std::string> Schedule::Kinds() {
  std::vector<std::string> kinds;
  for (const Profile& profile : kProfiles) kinds.push_back(profile.kind);
  return kinds;
}

double Schedule::Rate(int64_t step) const {
  LONGSPAN_CHECK(step >= 0 && step < config_.steps, "a step of the run");
  if (step < warmup_steps_) {
    return config_.peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps_);
  }
  const double t = static_cast<double>(step - warmup_steps_);
  const double z = 1 - t / static_cast<double>(config_.steps - warmup_steps_);
  return config_.peak * (config_.floor + (1 - config_.floor) * profile_->factor(z));
}

std::string Schedule::ToJson() const {
  return absl::StrCat("{\"kind\": \"", profile_->kind, "\", \"peak\": ", Text(config_.peak),
                      ", \"warmup_steps\": ", warmup_steps_, ", \"floor\": ", Text(config_.floor),
                      ", \"steps\": ", config_.steps, "}");
}

}  // namespace longspan
