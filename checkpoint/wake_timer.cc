#include "checkpoint/wake_timer.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"

namespace longspan {

absl::StatusOr<std::unique_ptr<WakeTimer>> WakeTimer::Create() {
  const int descriptor = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (descriptor < 0) {
    return absl::ResourceExhaustedError(absl::StrCat("timerfd_create: ", std::strerror(errno)));
  }
  return std::unique_ptr<WakeTimer>(new WakeTimer(descriptor));
}

WakeTimer::~WakeTimer() { close(descriptor_); }

void WakeTimer::Set() {
  itimerspec time{};
  time.it_value.tv_nsec = 200'000;
  LONGSPAN_CHECK(timerfd_settime(descriptor_, 0, &time, nullptr) == 0, "a timer can be set");
}

void WakeTimer::Wait() {
  uint64_t times = 0;
  while (read(descriptor_, &times, sizeof(times)) < 0) {
    LONGSPAN_CHECK(errno == EINTR, "a timer can be awaited");
  }
}

}  // namespace longspan
