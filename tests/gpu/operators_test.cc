// The table of operator cases on a GPU, or on the stand-in for one: agreement with the FP64
// reference, equal bits in a second run, nothing written between rows.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>

#include "../kernels/operator_cases.h"
#include "kernels/device/cuda_device.h"

namespace longspan {
namespace {

using reference::Doubles;

struct CudaFree {
  void operator()(char* memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<char, CudaFree>;

// Copies the operands to the GPU, runs the case there and copies them back.
void RunOnGpu(const OperatorCase& c, Device& device, CaseOperands& operands) {
  std::vector<DeviceMemory> owned;
  std::vector<void*> memory;
  for (const std::vector<char>& bytes : operands.storage()) {
    void* at = nullptr;
    ASSERT_EQ(cudaMalloc(&at, bytes.size()), cudaSuccess);
    owned.emplace_back(static_cast<char*>(at));
    memory.push_back(at);
    ASSERT_EQ(cudaMemcpy(at, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), cudaSuccess);
  }
  Stream stream = device.CreateStream("test");
  c.run(operands.Views(memory), stream);
  const absl::Status status = stream.Synchronize();
  ASSERT_TRUE(status.ok()) << status;
  for (size_t k = 0; k < memory.size(); ++k) {
    std::vector<char>& bytes = operands.storage()[k];
    ASSERT_EQ(cudaMemcpy(bytes.data(), memory[k], bytes.size(), cudaMemcpyDeviceToHost),
              cudaSuccess);
  }
}

class GpuOperatorTest : public testing::TestWithParam<OperatorCase> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
    device_->set_deterministic(true);
  }
  std::unique_ptr<Device> device_;
};

TEST_P(GpuOperatorTest, AgreesWithReference) {
  const OperatorCase& c = GetParam();
  CaseOperands once(c), again(c);
  RunOnGpu(c, *device_, once);
  RunOnGpu(c, *device_, again);
  std::vector<Doubles> wanted = once.initial();
  c.reference(wanted);
  for (size_t k = 0; k < c.operands.size(); ++k) {
    const std::string& name = c.operands[k].name;
    if (c.operands[k].role == Role::kInput || c.operands[k].role == Role::kScratch) continue;
    EXPECT_EQ(Disagreement(name, once.Values(k), wanted[k], c.tolerance), "");
    EXPECT_EQ(once.storage()[k], again.storage()[k]) << name << " has other bits in a second run";
  }
  EXPECT_TRUE(once.PaddingIntact());
}

std::vector<OperatorCase> RmsNormCases() {
  std::vector<OperatorCase> cases;
  for (OperatorCase& c : OperatorCases()) {
    if (c.name.rfind("rms_norm", 0) == 0) cases.push_back(std::move(c));
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Table, GpuOperatorTest, testing::ValuesIn(RmsNormCases()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace longspan
