#include "kernels/device/cuda_device.h"

#include <gtest/gtest.h>

#include "absl/time/time.h"

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

TEST_F(CudaStreamTest, WaitsForAnotherStream) {
  EventPromise gate;
  Stream ahead = device_->CreateStream("ahead"), behind = device_->CreateStream("behind");
  ahead.WaitFor(gate.event());
  behind.WaitFor(ahead.Record());
  const Event end = behind.Record();
  EXPECT_TRUE(absl::IsDeadlineExceeded(end.WaitFor(absl::Milliseconds(50))));
  gate.Complete();
  EXPECT_TRUE(end.WaitFor(absl::Seconds(20)).ok());
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

}  // namespace
}  // namespace longspan
