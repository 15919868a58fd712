#include "parallel/ring_simulation.h"

#include <algorithm>
#include <cstddef>

namespace longspan {

std::vector<RingMemberTimes> SimulateRing(const std::vector<RingMemberWork>& members,
                                          double transfer_seconds, double step_seconds) {
  const size_t count = members.size();
  std::vector<RingMemberTimes> times(count);
  std::vector<double> now(count), beside(count), posted(count), sent(count);
  for (size_t i = 0; i < count; ++i) {
    now[i] = times[i].busy = members[i].before;
    beside[i] = members[i].beside;
  }
  for (size_t step = 0; step + 1 < count; ++step) {
    for (size_t i = 0; i < count; ++i) posted[i] = now[i] + step_seconds;
    // sent[i]: when the transfer from member i to the one before it begins.
    for (size_t i = 0; i < count; ++i) {
      sent[i] = std::max(posted[i], posted[i == 0 ? count - 1 : i - 1]);
    }
    for (size_t i = 0; i < count; ++i) {
      const double last_begin = std::max(sent[i], sent[i + 1 == count ? 0 : i + 1]);
      const double transferred = last_begin + transfer_seconds;
      double computed = posted[i] + members[i].block;
      times[i].busy += members[i].block;
      times[i].exposed_transfer += step_seconds;
      if (computed < transferred) {
        const double filled = std::min(beside[i], transferred - computed);
        beside[i] -= filled;
        times[i].busy += filled;
        computed += filled;
        const double wait = transferred - computed;
        const double for_neighbour = std::clamp(last_begin - computed, 0.0, wait);
        times[i].group_wait += for_neighbour;
        times[i].exposed_transfer += wait - for_neighbour;
        now[i] = transferred;
      } else {
        now[i] = computed;
      }
    }
  }
  for (size_t i = 0; i < count; ++i) times[i].busy += members[i].block + beside[i];
  return times;
}

}  // namespace longspan
