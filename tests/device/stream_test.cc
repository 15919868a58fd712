#include "kernels/device/stream.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace longspan {
namespace {

TEST(StreamTest, RunsInLaunchOrder) {
  std::unique_ptr<Device> device = Device::OpenCpu(2);
  Stream stream = device->CreateStream("test");
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) stream.Launch("append", [&order, i] { order.push_back(i); });
  ASSERT_TRUE(stream.Synchronize().ok());
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(StreamTest, LaunchDoesNotWaitForTheWork) {
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  EventPromise gate;
  stream.WaitFor(gate.event());
  std::atomic<bool> ran{false};
  stream.Launch("work", [&] { ran = true; });
  const Event done = stream.Record();
  EXPECT_FALSE(done.Done());
  EXPECT_FALSE(ran.load());
  gate.Complete();
  ASSERT_TRUE(done.Wait().ok());
  EXPECT_TRUE(ran.load());
}

TEST(StreamTest, AnotherStreamWaitsForAnEvent) {
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream first = device->CreateStream("first"), second = device->CreateStream("second");
  int value = 0;
  first.Launch("slow", [&] {
    absl::SleepFor(absl::Milliseconds(20));
    value = 7;
  });
  second.WaitFor(first.Record());
  int seen = -1;
  second.Launch("read", [&] { seen = value; });
  ASSERT_TRUE(second.Synchronize().ok());
  EXPECT_EQ(seen, 7);
  EXPECT_GT(second.waited_seconds(), 0.005);
  EXPECT_EQ(first.waited_seconds(), 0);
}

TEST(StreamTest, FailureIsStickyAndSkipsLaterWork) {
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  EventPromise peer;
  stream.WaitFor(peer.event());
  std::atomic<bool> ran{false};
  stream.Launch("work", [&] { ran = true; });
  peer.Complete(absl::UnavailableError("rank 3 died"));
  EXPECT_EQ(stream.Synchronize().message(), "rank 3 died");
  stream.LaunchFallible("second failure", [] { return absl::InternalError("later"); });
  EXPECT_EQ(stream.Record().Wait().message(), "rank 3 died") << "the first failure counts";
  EXPECT_FALSE(ran.load());
}

TEST(StreamTest, RunsOnHostInOrderAndSaysHowItEnded) {
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  EventPromise gate;
  stream.WaitFor(gate.event());
  int64_t source = 5, copy = 0, seen = 0;
  stream.CopyBytes(&source, &copy, sizeof(copy));
  const Event ran = stream.RunOnHost("look", [&] {
    seen = copy;
    return absl::OkStatus();
  });
  const Event failed = stream.RunOnHost("fail", [] { return absl::DataLossError("gone"); });
  const Event skipped = stream.RunOnHost("skip", [&] {
    seen = -1;
    return absl::OkStatus();
  });
  EXPECT_FALSE(ran.Done());
  gate.Complete();
  EXPECT_TRUE(ran.Wait().ok());
  EXPECT_TRUE(absl::IsDataLoss(failed.Wait()));
  EXPECT_FALSE(skipped.Wait().ok());
  EXPECT_EQ(seen, 5);
  EXPECT_TRUE(absl::IsDataLoss(stream.Synchronize()));
}

TEST(StreamTest, CopiesAtOnce) {
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  const std::vector<int> from = {1, 2, 3};
  std::vector<int> to(3);
  ASSERT_TRUE(device->CopyNow(from.data(), to.data(), 3 * sizeof(int)).ok());
  EXPECT_EQ(to, from);
}

TEST(StreamTest, DestructionFinishesQueuedWork) {
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  int count = 0;
  {
    Stream stream = device->CreateStream("test");
    for (int i = 0; i < 50; ++i) stream.Launch("count", [&] { ++count; });
  }
  EXPECT_EQ(count, 50);
}

TEST(EventTest, ADroppedPromiseEndsTheWait) {
  Event event;
  EXPECT_TRUE(event.Done()) << "no event is a done event";
  {
    EventPromise promise;
    event = promise.event();
    EXPECT_FALSE(event.Done());
    EXPECT_EQ(event.WaitFor(absl::Milliseconds(1)).code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_EQ(event.Wait().code(), absl::StatusCode::kCancelled);
}

TEST(EventTest, CallbacksRunOnceWhetherEarlyOrLate) {
  EventPromise promise;
  int calls = 0;
  promise.event().OnDone([&](const absl::Status& status) { calls += status.ok() ? 1 : 100; });
  EXPECT_EQ(calls, 0);
  promise.Complete();
  promise.event().OnDone([&](const absl::Status& status) { calls += status.ok() ? 10 : 100; });
  EXPECT_EQ(calls, 11);
}

TEST(EventTest, APromiseMayBeKeptByAnotherEvent) {
  for (const bool early : {false, true}) {
    EventPromise promise, other;
    absl::Status seen = absl::UnknownError("not called");
    promise.event().OnDone([&](const absl::Status& status) { seen = status; });
    if (early) promise.CompleteWith(other.event());
    EXPECT_FALSE(promise.event().Done());
    EXPECT_TRUE(absl::IsDeadlineExceeded(promise.event().WaitFor(absl::Milliseconds(1))));
    other.Complete(absl::DataLossError("gone"));
    EXPECT_EQ(promise.event().Done(), early);
    if (!early) promise.CompleteWith(other.event());
    EXPECT_TRUE(promise.event().Done());
    EXPECT_TRUE(absl::IsDataLoss(promise.event().Wait()));
    EXPECT_TRUE(absl::IsDataLoss(promise.event().WaitFor(absl::ZeroDuration())));
    EXPECT_TRUE(absl::IsDataLoss(seen)) << seen;
  }
}

TEST(EventTest, AllAreDoneWhenTheLastIsAndTheFirstFailureCounts) {
  EXPECT_TRUE(WhenAll({}).Done());
  EventPromise first, second, third;
  const Event all = WhenAll({first.event(), Event(), second.event(), third.event()});
  absl::Status seen = absl::UnknownError("not called");
  all.OnDone([&](const absl::Status& status) { seen = status; });
  third.Complete(absl::InternalError("third"));
  second.Complete(absl::DataLossError("second"));
  EXPECT_FALSE(all.Done());
  EXPECT_TRUE(absl::IsDeadlineExceeded(all.WaitFor(absl::Milliseconds(1))));
  EXPECT_TRUE(absl::IsUnknown(seen));
  first.Complete();
  EXPECT_TRUE(all.Done());
  EXPECT_TRUE(absl::IsDataLoss(all.Wait()));
  EXPECT_TRUE(absl::IsDataLoss(seen)) << seen;
}

}  // namespace
}  // namespace longspan
