#include "kernels/device/thread_pool.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace longspan {
namespace {

TEST(ThreadPoolTest, RunsEveryTaskOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(count);
      pool.ParallelFor(count, [&](int64_t i) { runs[i].fetch_add(1); });
      for (int64_t i = 0; i < count; ++i)
        EXPECT_EQ(runs[i].load(), 1) << threads << " threads, task " << i;
    }
  }
}

TEST(ThreadPoolTest, ManyShortJobsInARowAndAfterSleep) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int job = 0; job < 2000; ++job) {
    pool.ParallelFor(4, [&](int64_t i) { sum.fetch_add(i); });
    if (job % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(sum.load(), 2000 * 6);
}

TEST(ThreadPoolTest, ABusyPoolRunsTheSecondCallerOnItsOwnThread) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int job = 0; job < 200; ++job) pool.ParallelFor(8, [&](int64_t) { sum.fetch_add(1); });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum.load(), 4 * 200 * 8);
}

TEST(ThreadPoolTest, NestedCallsFinish) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  pool.ParallelFor(4, [&](int64_t) { pool.ParallelFor(4, [&](int64_t) { sum.fetch_add(1); }); });
  EXPECT_EQ(sum.load(), 16);
}

}  // namespace
}  // namespace longspan
