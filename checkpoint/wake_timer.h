// WakeTimer: wakes a thread a moment later, from a timer's interrupt.
//
// Whoever wakes a thread of its own core is often preempted on the way out of that call, for
// milliseconds where all cores compute. The thread that trains is not to be held up in the call
// that takes a snapshot: it sets a timer, and is long back when that goes off.
#ifndef LONGSPAN_CHECKPOINT_WAKE_TIMER_H_
#define LONGSPAN_CHECKPOINT_WAKE_TIMER_H_

#include <memory>

#include "absl/status/statusor.h"

namespace longspan {

// Thread-safe; one thread waits.
class WakeTimer {
 public:
  // ResourceExhausted if the system gives no more descriptors.
  static absl::StatusOr<std::unique_ptr<WakeTimer>> Create();
  ~WakeTimer();
  WakeTimer(const WakeTimer&) = delete;
  WakeTimer& operator=(const WakeTimer&) = delete;

  // Wait returns a fifth of a millisecond from now, or at once if it is called later than that.
  void Set();
  // Blocks until a Set that no Wait has returned for.
  void Wait();

 private:
  explicit WakeTimer(int descriptor) : descriptor_(descriptor) {}
  const int descriptor_;  // a timerfd
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_WAKE_TIMER_H_
