// Which epilogues of matrix products the library takes, which become passes of their own, and that
// this is found out once for a shape.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "../../kernels/operator_cases.h"
#include "../device_memory.h"
#include "cublaslt.h"
#include "kernels/device/cuda_device.h"
#include "runtime.h"

namespace longspan {
namespace {

using reference::Doubles;

class StandInMatrixProductsTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }
  void TearDown() override { LongspanStandInRefuseEpilogues(false); }

  // What one call of the case launches, the product included. Its results are checked.
  int64_t Launches(const OperatorCase& c) {
    CaseOperands operands(c);
    std::vector<DeviceMemory> owned;
    std::vector<void*> memory;
    for (const std::vector<char>& bytes : operands.storage()) {
      owned.push_back(DeviceMemory::Of(bytes));
      memory.push_back(owned.back().data());
    }
    Stream stream = device_->CreateStream("test");
    const int64_t before = stand_in::CountsSoFar().launches;
    c.run(operands.Views(memory), stream);
    const int64_t launches = stand_in::CountsSoFar().launches - before;
    const absl::Status status = stream.Synchronize();
    EXPECT_TRUE(status.ok()) << c.name << ": " << status;
    for (size_t k = 0; k < memory.size(); ++k) owned[k].CopyTo(operands.storage()[k]);
    std::vector<Doubles> wanted = operands.initial();
    c.reference(wanted);
    for (size_t k = 0; k < c.operands.size(); ++k) {
      const Operand& operand = c.operands[k];
      if (operand.role == Role::kInput) continue;
      EXPECT_EQ(Disagreement(operand.name, operands.Values(k), wanted[k], ToleranceOf(c, operand)),
                "")
          << c.name;
    }
    return launches;
  }

  std::unique_ptr<Device> device_;
};

OperatorCase Case(const std::string& name) {
  for (OperatorCase& c : GpuOperatorCases()) {
    if (c.name == name) return c;
  }
  ADD_FAILURE() << "no case " << name;
  return {};
}

// Rows of pre-activations that are a multiple of 8 long, strides included; bf16 and f32.
const char* const kFused[] = {
    "gemm_nn_bias_70x48x64",
    "gemm_nn_sum_bias_37x43x19",
    "gemm_nt_bias_gelu_70x48x64",
    "gemm_nt_bias_gelu_7x13x64_strided",
    "gemm_nn_bias_gelu_150x200x130_bf16_a_b_c_bias_pre_activation",
    "gemm_nt_gelu_gradient_150x200x130",
    "gemm_nt_gelu_gradient_150x200x130_bf16_a_b_c_pre_activation",
};
// What has to be a pass of its own.
const char* const kApart[] = {
    "gemm_nn_bias_gelu_37x43x19",
    "gemm_nn_gelu_gradient_33x17x40_strided",
    "gemm_nn_gelu_gradient_37x43x19_bf16_a_b_c_pre_activation",
};

TEST_F(StandInMatrixProductsTest, EpiloguesThatTheLibraryTakesAreNoPasses) {
  for (const char* name : kFused) EXPECT_EQ(Launches(Case(name)), 1) << name;
  // The library stores the gradient of a bias; adding it is left.
  EXPECT_EQ(Launches(Case("gemm_tn_sum_whole_bias_gradient_150x200x130")), 2);
  EXPECT_EQ(Launches(Case("gemm_tn_sum_whole_bias_gradient_37x43x19_bf16_a_b")), 2);
  for (const char* name : kApart) EXPECT_GE(Launches(Case(name)), 2) << name;
  // A bf16 result would round the gradient; alpha would take part in it.
  EXPECT_GE(Launches(Case("gemm_tn_sum_whole_bias_gradient_37x43x19_bf16_a_b_c_bias")), 3);
  EXPECT_GE(Launches(Case("gemm_tn_sum_bias_gradient_70x48x64")), 3);
}

TEST_F(StandInMatrixProductsTest, WhatTheLibraryRefusesIsAPassOfItsOwnWithoutAskingAgain) {
  LongspanStandInRefuseEpilogues(true);
  for (const char* name : kFused) {
    EXPECT_GE(Launches(Case(name)), 2) << name;
    const int64_t asked = LongspanStandInAlgorithmQuestions();
    EXPECT_GE(Launches(Case(name)), 2) << name;
    EXPECT_EQ(LongspanStandInAlgorithmQuestions(), asked) << name;
  }
  // Kept for the device, whatever the library would say now.
  LongspanStandInRefuseEpilogues(false);
  for (const char* name : kFused) EXPECT_GE(Launches(Case(name)), 2) << name;
}

TEST_F(StandInMatrixProductsTest, AnAlgorithmIsAskedForOncePerShape) {
  for (const char* name : kFused) {
    (void)Launches(Case(name));
    const int64_t asked = LongspanStandInAlgorithmQuestions();
    (void)Launches(Case(name));
    EXPECT_EQ(LongspanStandInAlgorithmQuestions(), asked) << name;
  }
}

}  // namespace
}  // namespace longspan
