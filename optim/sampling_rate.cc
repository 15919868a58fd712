#include "optim/sampling_rate.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace longspan {

// Conditions are written so that NaN fails them.
absl::Status Check(const SamplingRate& sampling) {
  if (sampling.every < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule.sampling is ", sampling.every, "; it must be at least 1 update"));
  }
  if (!(sampling.share >= 0 && sampling.share <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("schedule.sampling is ", sampling.share * 100,
                                                   "%; it must lie above 0% and at most at 100%"));
  }
  double last = 0;
  for (const double point : sampling.points) {
    if (!(point > last && point < 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("schedule.sampling has a point at ", point,
                       "; points must be shares of the steps below 1, each above the one before"));
    }
    last = point;
  }
  return absl::OkStatus();
}

int64_t LastRefresh(const SamplingRate& sampling, int64_t t, int64_t steps) {
  const double whole = static_cast<double>(steps);
  if (!sampling.points.empty()) {
    int64_t refresh = 0;
    for (const double point : sampling.points) {
      const int64_t at = std::llround(point * whole);
      if (at <= t) refresh = at;
    }
    return refresh;
  }
  if (sampling.share > 0) {
    const double interval = sampling.share * whole;
    // One too many, for the rounding, then back to the last that has come.
    double count = std::floor(static_cast<double>(t) / interval) + 1;
    while (std::llround(count * interval) > t) --count;
    return std::llround(count * interval);
  }
  return t - t % sampling.every;
}

}  // namespace longspan
