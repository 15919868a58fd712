// SamplingRate: how often a schedule's rate is refreshed from its curve (arXiv 2107.04197 keeps it
// apart from the profile). Between refreshes the rate is held.
#ifndef LONGSPAN_OPTIM_SAMPLING_RATE_H_
#define LONGSPAN_OPTIM_SAMPLING_RATE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace longspan {

// Exactly one of the three counts: `points` where there are any, else `share` where it is above 0,
// else `every`. Update 0 always refreshes.
struct SamplingRate {
  int64_t every = 1;           // updates
  double share = 0;            // of the profile's updates: 0.05 refreshes twenty times
  std::vector<double> points;  // ascending shares of the profile's updates, in (0, 1)

  bool operator==(const SamplingRate&) const = default;
};

// InvalidArgument: a value out of range; the message names the key.
absl::Status Check(const SamplingRate& sampling);

// The last refresh at or before update t of a profile of `steps` updates. Shares are rounded to
// whole updates. The first of `points` is the first refresh after update 0: 50-75 on a linear
// profile gives 1, 0.5, 0.25.
int64_t LastRefresh(const SamplingRate& sampling, int64_t t, int64_t steps);

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_SAMPLING_RATE_H_
