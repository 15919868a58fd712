// RMSNorm on the GPU against the same operator on the CPU and the FP64 reference, over the table of
// operator cases.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>

#include "../kernels/operator_cases.h"
#include "kernels/device/cuda_device.h"

namespace longspan {
namespace {

using reference::Doubles;

std::vector<OperatorCase> RmsNormCases() {
  std::vector<OperatorCase> cases;
  for (OperatorCase& c : OperatorCases()) {
    if (c.name.rfind("rms_norm", 0) == 0) cases.push_back(std::move(c));
  }
  return cases;
}

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

class GpuNormalizationTest : public testing::TestWithParam<OperatorCase> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
  }
  std::unique_ptr<Device> device_;
};

TEST_P(GpuNormalizationTest, AgreesWithCpuAndReference) {
  const OperatorCase& c = GetParam();
  CaseOperands on_cpu(c), on_gpu(c), again(c);
  RunOnGpu(c, *device_, on_gpu);
  RunOnGpu(c, *device_, again);
  const std::unique_ptr<Device> cpu = Device::OpenCpu(2);
  Stream stream = cpu->CreateStream("test");
  c.run(on_cpu.Views(), stream);
  ASSERT_TRUE(stream.Synchronize().ok());
  std::vector<Doubles> wanted = on_cpu.initial();
  c.reference(wanted);
  for (size_t k = 0; k < c.operands.size(); ++k) {
    const std::string& name = c.operands[k].name;
    if (c.operands[k].role == Role::kInput) continue;
    const Doubles got = on_gpu.Values(k);
    EXPECT_EQ(Disagreement(name, got, wanted[k], c.tolerance), "");
    EXPECT_EQ(Disagreement(name, got, on_cpu.Values(k), 2 * c.tolerance), "");
    EXPECT_EQ(on_gpu.storage()[k], again.storage()[k]) << name << " has other bits in a second run";
  }
  EXPECT_TRUE(on_gpu.PaddingIntact());
}

INSTANTIATE_TEST_SUITE_P(Table, GpuNormalizationTest, testing::ValuesIn(RmsNormCases()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace longspan
