// SimulateRing: one pass of a ring, step by step, under given durations.
#ifndef LONGSPAN_PARALLEL_RING_SIMULATION_H_
#define LONGSPAN_PARALLEL_RING_SIMULATION_H_

#include <vector>

namespace longspan {

// Seconds of a member's own work.
struct RingMemberWork {
  double before = 0;  // what comes before the first block
  double block = 0;   // attention against the keys and values of one member
  double beside = 0;  // attention of whole sequences: done while a transfer would keep it waiting
};

// Where a member's time in the ring went.
struct RingMemberTimes {
  double busy = 0;
  double group_wait = 0;        // for a neighbour that is not as far
  double exposed_transfer = 0;  // for bytes under way, and the latency of each step
  double total() const { return busy + group_wait + exposed_transfer; }
};

// Members in ring order, all starting together. In each of their steps but the last a member posts
// the message to its neighbour on one side and the one from the other side (`step_seconds`), a
// transfer (`transfer_seconds`) begins once both of its ends have posted, and the block is computed
// meanwhile; the step ends when the block and both transfers have. O(members^2).
std::vector<RingMemberTimes> SimulateRing(const std::vector<RingMemberWork>& members,
                                          double transfer_seconds, double step_seconds);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_RING_SIMULATION_H_
