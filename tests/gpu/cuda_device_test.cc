#include "kernels/device/cuda_device.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "kernels/device/mirrored_buffer.h"

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

}  // namespace
}  // namespace longspan
