// Operators neither wait for the GPU nor allocate once they have run: no more than their first call
// needed. And what a device held is given back with it.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "../../kernels/operator_cases.h"
#include "../device_memory.h"
#include "kernels/attention.h"
#include "kernels/device/cuda_device.h"
#include "runtime.h"

namespace longspan {
namespace {

// Runs `step` three times; the last two may not ask the runtime for anything but launches.
template <typename Step>
void ExpectSteady(const std::string& name, Stream& stream, const Step& step) {
  step();
  ASSERT_TRUE(stream.Synchronize().ok()) << name;
  // What came in pieces comes in one from now on.
  step();
  ASSERT_TRUE(stream.Synchronize().ok()) << name;
  const stand_in::Counts before = stand_in::CountsSoFar();
  step();
  const stand_in::Counts after = stand_in::CountsSoFar();
  EXPECT_EQ(after.allocations, before.allocations) << name;
  EXPECT_EQ(after.pool_allocations, before.pool_allocations) << name;
  EXPECT_EQ(after.waits, before.waits) << name;
  ASSERT_TRUE(stream.Synchronize().ok()) << name;
  EXPECT_EQ(stand_in::CountsSoFar().host_holds, before.host_holds) << name;
}

TEST(SteadyStateTest, OperatorsNeitherWaitNorAllocate) {
  {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    ASSERT_TRUE(device.ok()) << device.status();
    Stream stream = (*device)->CreateStream("test");
    for (const OperatorCase& c : GpuOperatorCases()) {
      CaseOperands operands(c);
      size_t bytes = 0;
      std::vector<DeviceMemory> owned;
      std::vector<void*> memory;
      for (const std::vector<char>& storage : operands.storage()) {
        bytes += storage.size();
        owned.push_back(DeviceMemory::Of(storage));
        memory.push_back(owned.back().data());
      }
      if (bytes > 200000) continue;
      const std::vector<TensorView> views = operands.Views(memory);
      ExpectSteady(c.name, stream, [&] { c.run(views, stream); });
    }
  }
  EXPECT_EQ(stand_in::Faults(), "");
}

TEST(SteadyStateTest, AttentionNeitherWaitsNorAllocates) {
  {
    constexpr int64_t kRows = 120, kHeads = 2, kHeadDim = 16;
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    ASSERT_TRUE(device.ok()) << device.status();
    const std::vector<uint16_t> narrow(kRows * kHeads * kHeadDim, 0x3c00);
    const std::vector<float> wide(narrow.size(), 0.5f);
    std::vector<DeviceMemory> bf16, f32;
    for (int i = 0; i < 4; ++i) bf16.push_back(DeviceMemory::Of(narrow));
    for (int i = 0; i < 6; ++i) f32.push_back(DeviceMemory::Of(wide));
    const auto operand = [&](int i) {
      return TensorView(bf16[i].data(), DType::kBF16, {kRows, kHeads, kHeadDim});
    };
    const auto heads = [&](int i) {
      return TensorView(f32[i].data(), DType::kF32, {kRows, kHeads, kHeadDim});
    };
    const auto per_head = [&](int i) {
      return TensorView(f32[i].data(), DType::kF32, {kRows, kHeads});
    };
    const std::vector<AttentionSpan> spans = {{0, 70, 0, 70, true}, {70, 50, 70, 50, true}};
    Stream stream = (*device)->CreateStream("test");
    ExpectSteady("attention", stream, [&] {
      AttentionForward(operand(0), operand(1), operand(2), spans, 0.25f, heads(0), per_head(1),
                       stream);
      AttentionDelta(heads(0), operand(3), per_head(2), stream);
      AttentionBackward(operand(0), operand(1), operand(2), operand(3), per_head(1), per_head(2),
                        spans, 0.25f, heads(3), heads(4), heads(5), stream);
    });
  }
  EXPECT_EQ(stand_in::Faults(), "");
}

}  // namespace
}  // namespace longspan
