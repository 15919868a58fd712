#include "kernels/device/cuda_device.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/device/mirrored_buffer.h"
#include "kernels/device/trace.h"

namespace longspan {
namespace {

TEST(CudaDeviceTest, RefusesAGpuThatIsNotThere) {
  const absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(100000);
  ASSERT_FALSE(device.ok());
  // With GPUs the index is wrong; without, the message says that there are none, or that CUDA is
  // not built in.
  EXPECT_TRUE(absl::IsInvalidArgument(device.status()) ||
              absl::IsFailedPrecondition(device.status()) || absl::IsUnimplemented(device.status()))
      << device.status();
  EXPECT_FALSE(device.status().message().empty());
}

class CudaStreamTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
  }
  std::unique_ptr<Device> device_;
};

TEST_F(CudaStreamTest, WaitsForHostEventsInAnyOrder) {
  EventPromise first, second;
  Stream stream = device_->CreateStream("test");
  EXPECT_EQ(stream.kind(), DeviceKind::kCuda);
  EXPECT_NE(stream.native(), nullptr);
  stream.WaitFor(first.event());
  const Event between = stream.Record();
  stream.WaitFor(second.event());
  const Event end = stream.Record();
  second.Complete();
  EXPECT_TRUE(absl::IsDeadlineExceeded(between.WaitFor(absl::Milliseconds(50))));
  first.Complete();
  EXPECT_TRUE(end.WaitFor(absl::Seconds(20)).ok());
  EXPECT_TRUE(between.Done());
  EXPECT_TRUE(stream.Synchronize().ok());
}

TEST_F(CudaStreamTest, CopiesBetweenHostAndDeviceInOrder) {
  Stream stream = device_->CreateStream("test");
  const absl::StatusOr<MirroredBuffer> buffer = MirroredBuffer::Allocate(*device_, 80, "test");
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  const TensorView host = buffer->OnHost(DType::kI64, {10});
  const TensorView device = buffer->OnDevice(DType::kI64, {10});
  ASSERT_NE(host.raw(), device.raw());
  for (int i = 0; i < 10; ++i) host.data<int64_t>()[i] = i;
  buffer->ToDevice(0, 80, stream);
  // Half of it moves within the device before it comes back.
  stream.CopyBytes(device.raw(), device.data<int64_t>() + 5, 40);
  EventPromise gate;
  int64_t seen = -1;
  const Event looked = stream.RunOnHost("look", [&] {
    seen = host.data<int64_t>()[9];
    return absl::OkStatus();
  });
  ASSERT_TRUE(looked.WaitFor(absl::Seconds(20)).ok());
  EXPECT_EQ(seen, 9) << "the host's side is its own";
  stream.WaitFor(gate.event());
  buffer->ToHost(0, 80, stream);
  const Event waited = stream.RunOnHost("look", [&] {
    seen = host.data<int64_t>()[9];
    return absl::OkStatus();
  });
  EXPECT_FALSE(waited.Done());
  gate.Complete();
  ASSERT_TRUE(waited.WaitFor(absl::Seconds(20)).ok());
  EXPECT_EQ(seen, 4);
  ASSERT_TRUE(stream.Synchronize().ok());
  std::vector<int64_t> again(10);
  ASSERT_TRUE(device_->CopyNow(device.raw(), again.data(), 80).ok());
  EXPECT_EQ(again, std::vector<int64_t>({0, 1, 2, 3, 4, 0, 1, 2, 3, 4}));
}

TEST_F(CudaStreamTest, SkipsHostWorkBehindAFailure) {
  EventPromise promise;
  Stream stream = device_->CreateStream("test");
  stream.WaitFor(promise.event());
  bool ran = false;
  const Event skipped = stream.RunOnHost("skip", [&] {
    ran = true;
    return absl::OkStatus();
  });
  promise.Complete(absl::UnavailableError("the peer is gone"));
  EXPECT_FALSE(skipped.WaitFor(absl::Seconds(20)).ok());
  EXPECT_FALSE(ran);
}

TEST_F(CudaStreamTest, ZeroesDeviceMemory) {
  const absl::StatusOr<Buffer> buffer =
      Buffer::AllocateZeroed(device_->memory(), 4096, "test", Placement::kDevice);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  std::vector<char> bytes(4096, 'x');
  ASSERT_TRUE(device_->CopyNow(buffer->data(), bytes.data(), 4096).ok());
  EXPECT_EQ(bytes, std::vector<char>(4096, 0));
}

TEST_F(CudaStreamTest, WaitsForAnotherStream) {
  EventPromise gate;
  Stream ahead = device_->CreateStream("ahead"), behind = device_->CreateStream("behind");
  ahead.WaitFor(gate.event());
  behind.WaitFor(ahead.Record());
  const Event end = behind.Record();
  EXPECT_TRUE(absl::IsDeadlineExceeded(end.WaitFor(absl::Milliseconds(50))));
  gate.Complete();
  EXPECT_TRUE(end.WaitFor(absl::Seconds(20)).ok());
  EXPECT_GT(ahead.waited_seconds(), 0.02) << "what a stream is idle for is known";
  EXPECT_GT(behind.waited_seconds(), 0.02);
  const double before = behind.waited_seconds();
  behind.WaitFor(end);
  ASSERT_TRUE(behind.Synchronize().ok());
  EXPECT_EQ(behind.waited_seconds(), before) << "what is done is not waited for";
}

TEST_F(CudaStreamTest, ReportsTheFailureOfAnEventItWaitedFor) {
  EventPromise promise;
  Stream stream = device_->CreateStream("test");
  stream.WaitFor(promise.event());
  const Event end = stream.Record();
  promise.Complete(absl::UnavailableError("the peer is gone"));
  EXPECT_TRUE(absl::IsUnavailable(end.WaitFor(absl::Seconds(20))));
  EXPECT_TRUE(absl::IsUnavailable(stream.Synchronize()));
}

TEST_F(CudaStreamTest, FailsByAHandleThatOutlivesIt) {
  std::function<void(const absl::Status&)> fail;
  {
    EventPromise promise;
    Stream stream = device_->CreateStream("test");
    fail = stream.Failer();
    stream.WaitFor(promise.event());
    const Event end = stream.Record();
    Stream moved = std::move(stream);
    fail(absl::UnavailableError("the peer is gone"));
    promise.Complete();
    EXPECT_TRUE(absl::IsUnavailable(end.WaitFor(absl::Seconds(20))));
    EXPECT_TRUE(absl::IsUnavailable(moved.Synchronize()));
  }
  fail(absl::UnavailableError("nobody listens"));
}

TEST_F(CudaStreamTest, AFailureReachesStreamsThatWaitForTheStream) {
  EventPromise promise;
  Stream first = device_->CreateStream("first"), second = device_->CreateStream("second"),
         third = device_->CreateStream("third");
  const Event before = first.Record();
  first.WaitFor(promise.event());
  second.WaitFor(first.Record());
  third.WaitFor(second.Record());
  const Event end = third.Record();
  promise.Complete(absl::UnavailableError("the peer is gone"));
  EXPECT_TRUE(absl::IsUnavailable(end.WaitFor(absl::Seconds(20))));
  EXPECT_TRUE(absl::IsUnavailable(third.Synchronize()));
  EXPECT_TRUE(before.Wait().ok()) << "what lies before the wait has not failed";
  Stream other = device_->CreateStream("other");
  other.WaitFor(before);
  EXPECT_TRUE(other.Synchronize().ok());
}

// Two streams that wait for each other in turn, far ahead of the host's knowledge of them.
TEST_F(CudaStreamTest, LongChainsOfWaitsEnd) {
  for (const absl::Status& outcome :
       {absl::OkStatus(), absl::UnavailableError("the peer is gone")}) {
    EventPromise promise;
    Stream first = device_->CreateStream("first"), second = device_->CreateStream("second");
    first.WaitFor(promise.event());
    for (int i = 0; i < 2000; ++i) {
      second.WaitFor(first.Record());
      first.WaitFor(second.Record());
    }
    const Event end = first.Record();
    EXPECT_FALSE(end.Done());
    promise.Complete(outcome);
    EXPECT_EQ(end.WaitFor(absl::Seconds(60)), outcome);
    EXPECT_EQ(second.Synchronize(), outcome);
  }
}

TEST_F(CudaStreamTest, WaitsForAPromiseThatAnotherStreamKeeps) {
  for (const bool early : {false, true}) {
    EventPromise promise, gate;
    Stream ahead = device_->CreateStream("ahead"), behind = device_->CreateStream("behind");
    const absl::StatusOr<MirroredBuffer> buffer = MirroredBuffer::Allocate(*device_, 8, "test");
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    int64_t& on_host = *buffer->OnHost(DType::kI64, {1}).data<int64_t>();
    on_host = 7;
    ahead.WaitFor(gate.event());
    buffer->ToDevice(0, 8, ahead);
    const Event written = ahead.Record();
    if (early) promise.CompleteWith(written);
    behind.WaitFor(WhenAll({promise.event(), Event()}));
    if (!early) promise.CompleteWith(written);
    int64_t seen = 0;
    EXPECT_TRUE(absl::IsDeadlineExceeded(behind.Record().WaitFor(absl::Milliseconds(20))));
    gate.Complete();
    ASSERT_TRUE(behind.Synchronize().ok());
    ASSERT_TRUE(
        device_->CopyNow(buffer->OnDevice(DType::kI64, {1}).raw(), &seen, sizeof(seen)).ok());
    EXPECT_EQ(seen, 7);
    absl::Status told = absl::UnknownError("not called");
    promise.event().OnDone([&](const absl::Status& status) { told = status; });
    EXPECT_TRUE(told.ok()) << told;
  }
}

TEST_F(CudaStreamTest, CallsBackWhenAStreamHasPassed) {
  EventPromise gate;
  Stream stream = device_->CreateStream("test");
  stream.WaitFor(gate.event());
  EventPromise called;
  stream.Record().OnDone([&](const absl::Status& status) { called.Complete(status); });
  EXPECT_TRUE(absl::IsDeadlineExceeded(called.event().WaitFor(absl::Milliseconds(20))));
  gate.Complete();
  EXPECT_TRUE(called.event().WaitFor(absl::Seconds(20)).ok());
}

TEST_F(CudaStreamTest, TimesItsSpans) {
  const auto recorder = std::make_shared<TraceRecorder>(1000);
  device_->set_trace(recorder);
  Stream stream = device_->CreateStream("compute"), copies = device_->CreateStream("copies");
  const absl::StatusOr<MirroredBuffer> buffer = MirroredBuffer::Allocate(*device_, 1 << 20, "test");
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  {
    const StreamSpan span(stream, {"not recorded", TraceKind::kTask});
    buffer->ToHost(0, buffer->bytes(), stream);
  }
  device_->CollectTrace();
  recorder->Resume();
  recorder->set_step(7);
  const int64_t begin = TraceClock();
  EventPromise gate;
  {
    const StreamSpan outer(stream,
                           {.name = "micro-batch", .kind = TraceKind::kTask, .micro_batch = 3});
    buffer->ToHost(0, buffer->bytes(), stream);
    const StreamSpan inner(stream, {.name = "layer", .kind = TraceKind::kTask, .layer = 2});
    copies.WaitFor(gate.event());
    stream.WaitFor(copies.Record());
  }
  recorder->set_step(8);
  absl::SleepFor(absl::Milliseconds(30));
  gate.Complete();
  ASSERT_TRUE(stream.Synchronize().ok());
  const int64_t end = TraceClock();
  ASSERT_TRUE(copies.Synchronize().ok());
  EXPECT_TRUE(recorder->Take().empty()) << "until it is asked for";
  device_->CollectTrace();
  std::map<std::string, TraceEvent> spans;  // by row and name
  const std::vector<std::string> rows = recorder->rows();
  for (const TraceEvent& event : recorder->Take()) {
    spans[rows[event.row] + " " + event.label.name] = event;
  }
  for (const char* name : {"compute micro-batch", "compute layer", "compute wait", "copies wait"}) {
    ASSERT_TRUE(spans.contains(name)) << name;
    const TraceEvent& span = spans[name];
    EXPECT_LE(begin, span.begin_ns) << name;
    EXPECT_LE(span.begin_ns, span.end_ns) << name;
    EXPECT_EQ(span.label.step, 7) << name;
    // Of which nearly all was spent waiting.
    EXPECT_GE(span.end_ns - span.begin_ns, 20'000'000) << name;
    if (std::string(name).find("compute") == 0) {
      EXPECT_LE(span.end_ns, end) << name;
    }
  }
  const TraceEvent &outer = spans["compute micro-batch"], &inner = spans["compute layer"],
                   &wait = spans["compute wait"];
  EXPECT_LE(outer.begin_ns, inner.begin_ns);
  EXPECT_LE(inner.begin_ns, wait.begin_ns);
  EXPECT_LE(wait.end_ns, inner.end_ns);
  EXPECT_LE(inner.end_ns, outer.end_ns);
  EXPECT_EQ(wait.label.micro_batch, 3);
  EXPECT_EQ(wait.label.layer, 2);
  EXPECT_FALSE(spans.contains("compute not recorded"));
}

}  // namespace
}  // namespace longspan
