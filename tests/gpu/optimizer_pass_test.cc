// The content sums that updates on a GPU, or on the stand-in for one, leave of what they wrote:
// those that the CPU finds in it.
#include "kernels/optimizer_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>

#include "device_memory.h"
#include "kernels/device/content_sum.h"
#include "kernels/device/cuda_device.h"

namespace longspan {
namespace {

class GpuOptimizerPassTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
  }

  void CheckSums(int64_t count, int64_t position) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<float> gradient(count), first(count), second(count), parameter(count);
    for (int64_t i = 0; i < count; ++i) {
      gradient[i] = normal(random);
      first[i] = normal(random);
      second[i] = std::abs(normal(random));
      parameter[i] = normal(random);
    }
    std::vector<uint64_t> sums = {10, 20, 30};
    const DeviceMemory g = DeviceMemory::Of(gradient), p = DeviceMemory::Of(parameter);
    const DeviceMemory m = DeviceMemory::Of(first), v = DeviceMemory::Of(second);
    const DeviceMemory s = DeviceMemory::Of(sums);
    const auto on = [&](const DeviceMemory& memory) {
      return TensorView(memory.data(), DType::kF32, {count});
    };
    Stream stream = device_->CreateStream("test");
    AdamWUpdate({.rate = 1e-2, .weight_decay = 0.1}, on(g), on(p), on(m), on(v), stream,
                TensorView(), {TensorView(s.data(), DType::kU64, {3}), position});
    ASSERT_TRUE(stream.Synchronize().ok());
    s.CopyTo(sums);
    p.CopyTo(parameter);
    m.CopyTo(first);
    v.CopyTo(second);
    EXPECT_EQ(sums[0], 10 + ContentSum(parameter.data(), count, position));
    EXPECT_EQ(sums[1], 20 + ContentSum(first.data(), count, position));
    EXPECT_EQ(sums[2], 30 + ContentSum(second.data(), count, position));

    const std::vector<uint64_t> before = sums;
    SgdUpdate({.rate = 1e-2}, on(g), on(p), on(m), stream,
              {TensorView(s.data(), DType::kU64, {3}).Slice(0, 0, 2), position});
    ASSERT_TRUE(stream.Synchronize().ok());
    s.CopyTo(sums);
    p.CopyTo(parameter);
    m.CopyTo(first);
    EXPECT_EQ(sums[0], before[0] + ContentSum(parameter.data(), count, position));
    EXPECT_EQ(sums[1], before[1] + ContentSum(first.data(), count, position));
    EXPECT_EQ(sums[2], before[2]);
  }

  std::unique_ptr<Device> device_;
};

TEST_F(GpuOptimizerPassTest, TellsTheContentSumsOfWhatItWrote) {
  CheckSums(40000, 0);
  CheckSums(40000, 4 * 321);
  CheckSums(40000, 777);
  CheckSums(4099, 1023);
  CheckSums(1, 5);
}

}  // namespace
}  // namespace longspan
