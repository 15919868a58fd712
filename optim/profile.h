// Profiles: the shapes of learning-rate schedules, as factors of the peak.
#ifndef LONGSPAN_OPTIM_PROFILE_H_
#define LONGSPAN_OPTIM_PROFILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace longspan {

// Parameters of the shapes that have any, under the names that they have in [schedule].
struct ProfileParameters {
  double rex_b = 0.5;                     // rex, in [0, 1): z / ((1-b) + b z)
  double cooldown = 0.2;                  // wsd, in (0, 1]: share of the updates that it falls over
  std::string cooldown_shape = "linear";  // wsd: "linear", 1 - u; or "sqrt", 1 - sqrt(u)
  double power = 2;                       // polynomial, > 0
  double decay = 3;                       // exponential, >= 0: the last factor is about exp(-decay)
  std::vector<double> milestones = {0.5, 0.75};  // step: ascending shares of the updates, in (0, 1)
  double milestone_factor = 0.1;                 // step, > 0: what each milestone multiplies by
};

// InvalidArgument: a value out of range; the message names its key.
absl::Status Check(const ProfileParameters& parameters);

// A place on a profile that runs over `steps` updates.
struct ProfilePoint {
  int64_t t = 0;  // 0 ... steps - 1
  int64_t steps = 1;
  int64_t warmup_steps = 0;  // updates before the profile's first

  // The share of the profile that is left, from 1 down to 1/steps.
  double z() const { return static_cast<double>(steps - t) / static_cast<double>(steps); }
};

// A shape that needs nothing but its parameters. Sources: linear, arXiv 2310.07831 (optimal in the
// worst case for the last iterate); rex, arXiv 2107.04197 (b = 0.5); wsd, arXiv 2404.06395.
struct Profile {
  const char* kind;
  double (*factor)(const ProfilePoint& point, const ProfileParameters& parameters);
};

const std::vector<Profile>& Profiles();
// nullptr: no such profile.
const Profile* FindProfile(const std::string& kind);

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_PROFILE_H_
