#include "runtime/cost/cost_fit.h"

#include <gtest/gtest.h>

#include "parallel/plan_outline.h"

namespace longspan {
namespace {

// 8 lengths x 4 widths, as a profile measures them, with exact times.
std::vector<CostSample> Exact(const CostModel& cost, const std::vector<int>& widths) {
  std::vector<CostSample> samples;
  const IntegerCostModel exact = *IntegerCostModel::Create(cost, 8);
  for (const int members : widths) {
    for (const int64_t rows : {128, 256, 512, 1024, 2048, 4096, 6144, 8192}) {
      CostSample sample;
      sample.load = ShareLoad(rows * members, members, 0, 0);
      sample.seconds = IntegerCostModel::Seconds(exact.MicroBatch(sample.load));
      samples.push_back(sample);
    }
  }
  return samples;
}

TEST(CostFitTest, RecoversCoefficientsOfExactTimes) {
  const CostModel cost = {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3, {}};
  const absl::StatusOr<CostFit> fit = FitCost(Exact(cost, {1, 2, 4, 8}));
  ASSERT_TRUE(fit.ok()) << fit.status().ToString();
  EXPECT_NEAR(fit->cost.attention_seconds_per_pair / cost.attention_seconds_per_pair, 1, 1e-3);
  EXPECT_NEAR(fit->cost.linear_seconds_per_token / cost.linear_seconds_per_token, 1, 1e-3);
  EXPECT_NEAR(fit->cost.ring_seconds_per_token / cost.ring_seconds_per_token, 1, 1e-3);
  EXPECT_NEAR(fit->cost.ring_step_seconds / cost.ring_step_seconds, 1, 1e-3);
  EXPECT_NEAR(fit->cost.micro_batch_seconds / cost.micro_batch_seconds, 1, 1e-3);
  EXPECT_LT(fit->worst_error, 1e-4);
  EXPECT_EQ(fit->fitted_seconds.size(), 32u);
}

TEST(CostFitTest, OneRankTellsNothingAboutRings) {
  const absl::StatusOr<CostFit> fit = FitCost(Exact({2e-9, 1e-5, 5e-6, 1e-3, 1e-3, {}}, {1}));
  ASSERT_TRUE(fit.ok());
  EXPECT_NEAR(fit->cost.linear_seconds_per_token, 1e-5, 1e-8);
  EXPECT_EQ(fit->cost.ring_seconds_per_token, 0);
  EXPECT_EQ(fit->cost.ring_step_seconds, 0);
}

TEST(CostFitTest, CoefficientsAreNeverNegative) {
  // Long sequences cost less a token than short ones: plain least squares would make pairs cheaper
  // than nothing.
  std::vector<CostSample> samples = Exact({0, 1e-5, 0, 0, 1e-3, {}}, {1, 2});
  for (CostSample& sample : samples) {
    if (sample.load.tokens > 4000) sample.seconds *= 0.8;
  }
  const absl::StatusOr<CostFit> fit = FitCost(samples);
  ASSERT_TRUE(fit.ok());
  EXPECT_EQ(fit->cost.attention_seconds_per_pair, 0);
  EXPECT_GT(fit->cost.linear_seconds_per_token, 0);
  EXPECT_GE(fit->cost.ring_step_seconds, 0);
}

TEST(CostFitTest, RefusesWhatCannotBeFitted) {
  EXPECT_FALSE(FitCost({}).ok());
  EXPECT_FALSE(FitCost(std::vector<CostSample>(4)).ok());
}

}  // namespace
}  // namespace longspan
