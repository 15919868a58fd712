// TraceRecorder: what streams and hosts note, in order and within limits.
#include "kernels/device/trace.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/device/stream.h"

namespace longspan {
namespace {

void Busy() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

const TraceEvent* Find(const std::vector<TraceEvent>& events, const std::string& name) {
  for (const TraceEvent& event : events) {
    if (name == event.label.name) return &event;
  }
  return nullptr;
}

class TraceTest : public testing::Test {
 protected:
  TraceTest() : device_(Device::OpenCpu(1)), recorder_(std::make_shared<TraceRecorder>(1000)) {
    device_->set_trace(recorder_);
  }
  std::unique_ptr<Device> device_;
  std::shared_ptr<TraceRecorder> recorder_;
};

TEST_F(TraceTest, SpansHoldTheWorkLaunchedWithinThem) {
  Stream stream = device_->CreateStream("compute");
  recorder_->Resume();
  recorder_->set_step(7);
  EventPromise promise;
  {
    const StreamSpan outer(stream,
                           {.name = "micro-batch", .kind = TraceKind::kTask, .micro_batch = 3});
    const StreamSpan inner(stream, {.name = "layer", .kind = TraceKind::kTask, .layer = 2});
    EXPECT_EQ(stream.span().micro_batch, 3);
    EXPECT_EQ(stream.span().layer, 2);
    stream.Launch("work", Busy);
    stream.WaitFor(promise.event());
  }
  stream.Launch("alone", Busy);
  while (stream.Current() != "wait") std::this_thread::yield();
  Busy();
  promise.Complete();
  ASSERT_TRUE(stream.Synchronize().ok());
  const std::vector<TraceEvent> events = recorder_->Take();
  const TraceEvent *outer = Find(events, "micro-batch"), *inner = Find(events, "layer"),
                   *work = Find(events, "work"), *wait = Find(events, "wait"),
                   *alone = Find(events, "alone");
  ASSERT_TRUE(outer && inner && work && wait && alone);
  EXPECT_EQ(events.size(), 5u);
  EXPECT_LE(outer->begin_ns, inner->begin_ns);
  EXPECT_LE(inner->begin_ns, work->begin_ns);
  EXPECT_LE(work->end_ns, wait->begin_ns);
  EXPECT_LE(wait->end_ns, inner->end_ns);
  EXPECT_LE(inner->end_ns, outer->end_ns);
  EXPECT_LE(outer->end_ns, alone->begin_ns);
  EXPECT_GE(work->end_ns - work->begin_ns, 1'500'000);
  EXPECT_EQ(wait->label.kind, TraceKind::kWait);
  EXPECT_EQ(wait->label.layer, 2);
  EXPECT_EQ(wait->label.micro_batch, 3);
  EXPECT_EQ(alone->label.micro_batch, -1);
  for (const TraceEvent& event : events) {
    EXPECT_EQ(event.label.step, 7);
    EXPECT_EQ(recorder_->rows()[event.row], "compute");
  }
  EXPECT_TRUE(recorder_->Take().empty());
}

TEST_F(TraceTest, NothingWhilePausedOrWithoutRecorder) {
  const std::unique_ptr<Device> bare = Device::OpenCpu(1);
  for (Device* device : {device_.get(), bare.get()}) {
    Stream stream = device->CreateStream("compute");
    const StreamSpan span(stream, {"task", TraceKind::kTask});
    const HostSpan host(*device, {"read", TraceKind::kData});
    EXPECT_STREQ(stream.span().name, "");
    stream.Launch("work", Busy);
    ASSERT_TRUE(stream.Synchronize().ok());
  }
  EXPECT_TRUE(recorder_->Take().empty());
}

TEST_F(TraceTest, SpansEndOnAFailedStream) {
  Stream stream = device_->CreateStream("compute");
  recorder_->Resume();
  {
    const StreamSpan span(stream, {"task", TraceKind::kTask});
    stream.LaunchFallible("broken", [] { return absl::InternalError("broken"); });
    stream.Launch("skipped", Busy);
  }
  EXPECT_FALSE(stream.Synchronize().ok());
  const std::vector<TraceEvent> events = recorder_->Take();
  EXPECT_NE(Find(events, "task"), nullptr);
  EXPECT_EQ(Find(events, "skipped"), nullptr);
}

TEST_F(TraceTest, KernelsGiveWayFirst) {
  TraceRecorder recorder(100);
  recorder.Resume();
  for (int i = 0; i < 100; ++i) recorder.Record({"gemm", TraceKind::kKernel}, 3, 0, 5000);
  recorder.Record({"short", TraceKind::kKernel}, 3, 0, 999);
  EXPECT_EQ(recorder.dropped(), 25);
  for (int i = 0; i < 30; ++i) recorder.Record({"layer", TraceKind::kTask}, 3, 0, 1);
  EXPECT_EQ(recorder.dropped(), 30);
  EXPECT_EQ(recorder.Take().size(), 100u);
}

TEST_F(TraceTest, ManyThreadsRecordAtOnce) {
  TraceRecorder recorder(100000);
  recorder.Resume();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&recorder, t] {
      const int row = recorder.RowOf("row " + std::to_string(t % 2));
      for (int i = 0; i < 10000; ++i) HostSpan(&recorder, row, {"span", TraceKind::kTask});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(recorder.Take().size(), 40000u);
  EXPECT_EQ(recorder.rows().size(), 5u);
}

}  // namespace
}  // namespace longspan
