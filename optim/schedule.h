// Schedule: step -> learning rate, in double precision, the same on every rank.
//
// Stateless and immutable: any thread may ask for any step in any order. With T updates of which
// the first W warm up, the rate is peak * (t + 1) / W in the warm-up; after it the profile
// (optim/profile.h) runs over the remaining T - W updates with its own t = 0 ... T-W-1 and z = 1 -
// t / (T-W), so the last rate is that of z = 1 / (T-W), never zero. A floor m lifts the profile's
// factor to m + (1 - m) * factor.
//
// Two kinds are lists instead of formulas and cover the whole run without a warm-up: "refined",
// factors of the peak from gradient norms (optim/refine.h), and "table", the rates themselves.
#ifndef LONGSPAN_OPTIM_SCHEDULE_H_
#define LONGSPAN_OPTIM_SCHEDULE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "optim/profile.h"
#include "optim/sampling_rate.h"

namespace longspan {

struct ScheduleConfig {
  std::string kind = "linear";
  double peak = 0;    // the highest rate, > 0; table: not used
  double warmup = 0;  // below 1: a share of the steps, rounded; else a whole number of steps
  double floor = 0;   // share of the peak, in [0, 1], that the profile does not go below
  int64_t steps = 0;  // updates of the whole run, >= 1
  ProfileParameters profile;
  SamplingRate sampling;
  std::vector<double> values;  // (steps); refined: factors in [0, 1]; table: rates; else empty
  std::string note;            // for people: where the values came from
};

class Schedule {
 public:
  // InvalidArgument: an unknown kind (the message lists the known ones), or a value out of range
  // (it names the key).
  static absl::StatusOr<Schedule> Create(const ScheduleConfig& config);
  // Names of all kinds, for help texts.
  static std::vector<std::string> Kinds();

  // The rate of update `step`, 0 <= step < steps().
  double Rate(int64_t step) const;
  // (steps()): the rates of all updates.
  std::vector<double> Rates() const;

  int64_t steps() const { return config_.steps; }
  // Updates that warm up.
  int64_t warmup_steps() const { return warmup_steps_; }
  const ScheduleConfig& config() const { return config_; }

  // The plan as checkpoints store it: {"kind": "linear", "peak": 0.0006, "warmup_steps": 4,
  // "floor": 0, "steps": 200}, then what the kind has of its own, "sampling", "values" and "note".
  // Numbers read back to the same bits.
  std::string ToJson() const;
  // DataLoss: not such a plan, or one of a newer version (the message tells).
  static absl::StatusOr<Schedule> FromJson(const std::string& json);

 private:
  Schedule() = default;

  ScheduleConfig config_;
  int64_t warmup_steps_ = 0;
  const Profile* profile_ = nullptr;  // static storage; none for lists
};

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_SCHEDULE_H_
