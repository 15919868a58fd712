#include "optim/gradient_norms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/device/stream.h"
#include "kernels/optimizer_pass.h"

namespace longspan {
namespace {

// What the all-reduce makes of one hash a rank.
StepSumVector Summed(const std::vector<uint64_t>& hashes) {
  StepSumVector sums{};
  for (const uint64_t hash : hashes) {
    StepSumVector values{};
    WritePlanHash(hash, values);
    for (int i = 0; i < kStepSums; ++i) sums[i] += values[i];
  }
  return sums;
}

TEST(GradientNormsTest, EqualHashesAgreeOnAnyNumberOfRanks) {
  for (const uint64_t hash :
       {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, uint64_t{0x123456789abcdef}}) {
    for (const int ranks : {1, 2, 3, 1000}) {
      EXPECT_TRUE(PlanHashesAgree(Summed(std::vector<uint64_t>(ranks, hash)), ranks));
    }
  }
  StepSumVector many{};
  WritePlanHash(~uint64_t{0}, many);
  for (double& value : many) value *= 1 << 20;
  EXPECT_TRUE(PlanHashesAgree(many, 1 << 20));
}

TEST(GradientNormsTest, OneDifferentBitOnOneRankIsSeen) {
  for (const int ranks : {2, 3, 257}) {
    for (int bit = 0; bit < 64; ++bit) {
      std::vector<uint64_t> hashes(ranks, 0x5555aaaa0f0f1234u);
      hashes[ranks / 2] ^= uint64_t{1} << bit;
      EXPECT_FALSE(PlanHashesAgree(Summed(hashes), ranks)) << bit;
    }
  }
  // Sums alone would miss these.
  EXPECT_FALSE(PlanHashesAgree(Summed({1, 2, 3}), 3));
  EXPECT_FALSE(PlanHashesAgree(Summed({0, 0x20002, 0x10001}), 3));
  StepSumVector broken = Summed({7, 7});
  broken[kPlanHashSums + 3] = std::nan("");
  EXPECT_FALSE(PlanHashesAgree(broken, 2));
}

TEST(GradientNormsTest, NormsAreOfTheMeanGradient) {
  StepSumVector sums{};
  sums[kGradientL1Sum] = 70;
  sums[kGradientSquaredL2Sum] = 2500;
  sums[kNonFiniteSum] = 3;
  const GradientNorms norms = NormsOf(sums, 10);
  EXPECT_DOUBLE_EQ(norms.l1, 7);
  EXPECT_DOUBLE_EQ(norms.l2, 5);
  EXPECT_EQ(norms.non_finite, 3);
}

TEST(GradientNormsTest, ClipsAsPyTorchDoes) {
  EXPECT_DOUBLE_EQ(ClipFactor(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(ClipFactor(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_DOUBLE_EQ(ClipFactor(0, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(ClipFactor(100, 0), 1.0);
}

TEST(GradientNormsTest, TheGradientPassWritesTheFirstPlaces) {
  const auto device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  std::vector<float> gradient = {3, -4, 0, HUGE_VALF};
  StepSumVector sums{};
  AccumulateGradientStatistics(TensorView::Of(gradient.data(), {4}),
                               TensorView::Of(sums.data(), {kGradientStatistics}), stream);
  ASSERT_TRUE(stream.Synchronize().ok());
  EXPECT_DOUBLE_EQ(sums[kGradientL1Sum], 7);
  EXPECT_DOUBLE_EQ(sums[kGradientSquaredL2Sum], 25);
  EXPECT_DOUBLE_EQ(sums[kNonFiniteSum], 1);
  EXPECT_DOUBLE_EQ(sums[kLossSum], 0);
}

}  // namespace
}  // namespace longspan
