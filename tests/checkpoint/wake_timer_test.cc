// A wake-up is never lost and never made up, and whoever causes it is not delayed by it.
#include "checkpoint/wake_timer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace longspan {
namespace {

TEST(WakeTimer, WakesWhoeverWaitsAndWhoeverComesLater) {
  const auto timer = WakeTimer::Create();
  ASSERT_TRUE(timer.ok()) << timer.status();
  std::atomic<int> woken = 0;
  std::thread waiter([&] {
    for (int i = 0; i < 2; ++i) {
      (*timer)->Wait();
      ++woken;
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(woken, 0);
  (*timer)->Set();
  while (woken < 1) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(woken, 1);
  (*timer)->Set();
  waiter.join();
  (*timer)->Set();
  (*timer)->Set();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  (*timer)->Wait();  // for both
}

}  // namespace
}  // namespace longspan
