#include "runtime/cost/cost_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "parallel/integer_cost.h"
#include "runtime/cost/known_devices.h"
#include "runtime/cost/known_models.h"

namespace longspan {
namespace {

using ::testing::HasSubstr;

CostModel Estimate(const std::string& device, const std::string& model, int tensor_parallel = 1) {
  const absl::StatusOr<CostEstimate> estimate = EstimateCost({device, model, tensor_parallel});
  EXPECT_TRUE(estimate.ok()) << estimate.status().ToString();
  return estimate.ok() ? estimate->cost : CostModel{};
}

std::string ErrorOf(const CostRequest& request) {
  return std::string(EstimateCost(request).status().message());
}

TEST(CostEstimateTest, ShapesHaveThePublishedParameterCounts) {
  // Matrix products only: embedding look-ups are left out, the head is counted.
  const struct {
    const char* name;
    double parameters;
  } published[] = {{"llama-7b", 6.74e9 - 0.131e9},   {"llama-13b", 13.02e9 - 0.164e9},
                   {"llama-70b", 68.98e9 - 0.262e9}, {"mistral-8x22b", 39.1e9 - 0.197e9},
                   {"llama3-8b", 8.03e9 - 0.525e9},  {"qwen2.5-0.5b", 0.494e9},
                   {"qwen2.5-1.5b", 1.54e9},         {"qwen2.5-7b", 7.61e9 - 0.545e9},
                   {"gpt2-124m", 124.4e6 - 0.79e6},  {"gpt2-1.5b", 1.558e9 - 1.6e6}};
  for (const auto& model : published) {
    const absl::StatusOr<ModelConfig> shape = ModelByName(model.name);
    ASSERT_TRUE(shape.ok()) << shape.status().ToString();
    EXPECT_NEAR(static_cast<double>(shape->MatmulParameters()) / model.parameters, 1, 0.01)
        << model.name;
  }
}

TEST(CostEstimateTest, EveryPairIsOneThatPlannersAccept) {
  for (const std::string& device : KnownDeviceNames()) {
    for (const std::string& model : KnownModelNames()) {
      const CostModel cost = Estimate(device, model);
      EXPECT_TRUE(IntegerCostModel::Create(cost, 4).ok()) << device << " " << model;
      EXPECT_GT(cost.attention_seconds_per_pair, 0);
      EXPECT_GT(cost.ring_seconds_per_token, 0);
    }
  }
}

TEST(CostEstimateTest, CountsByHand) {
  const CostModel cost = Estimate("h100", "llama-7b");
  const double parameters = 32.0 * (4 * 4096.0 * 4096 + 3 * 4096.0 * 11008) + 4096.0 * 32000;
  EXPECT_DOUBLE_EQ(cost.linear_seconds_per_token, 6 * parameters / (0.48 * 989.4e12));
  EXPECT_DOUBLE_EQ(cost.attention_seconds_per_pair, 32 * 4096 * (4 / 685e12 + 10 / 539e12));
  EXPECT_DOUBLE_EQ(cost.ring_seconds_per_token, 32 * 2 * 4096 * 8 / (0.7 * 50e9));
  EXPECT_DOUBLE_EQ(cost.ring_step_seconds, 96 * 20e-6);
  EXPECT_DOUBLE_EQ(cost.micro_batch_seconds, 8e-3);
}

TEST(CostEstimateTest, TensorParallelismDividesComputeAndCostsSums) {
  const CostModel one = Estimate("h100", "llama-70b"), eight = Estimate("h100", "llama-70b", 8);
  EXPECT_DOUBLE_EQ(eight.attention_seconds_per_pair, one.attention_seconds_per_pair / 8);
  EXPECT_DOUBLE_EQ(eight.ring_seconds_per_token, one.ring_seconds_per_token / 8);
  EXPECT_GT(eight.linear_seconds_per_token, one.linear_seconds_per_token / 8);
  EXPECT_LT(eight.linear_seconds_per_token, one.linear_seconds_per_token / 4);
  // Two KV heads cannot be split over seven devices.
  EXPECT_DOUBLE_EQ(Estimate("h100", "qwen2.5-0.5b", 7).ring_seconds_per_token,
                   Estimate("h100", "qwen2.5-0.5b").ring_seconds_per_token / 2);
}

TEST(CostEstimateTest, BytescaleIsTheExampleOfThePublicFormat) {
  const CostModel cost = Estimate("", kBytescaleModel);
  EXPECT_EQ(cost.attention_seconds_per_pair, 8.0e-9);
  EXPECT_EQ(cost.linear_seconds_per_token, 1.055e-4);
  // From the case study: 32 layers, backward twice forward, half of u^2 are causal pairs.
  EXPECT_NEAR(cost.attention_seconds_per_pair, 96 * 2.8e-3 / (8192.0 * 8192 / 2), 2e-11);
  EXPECT_NEAR(cost.linear_seconds_per_token, 96 * 9e-3 / 8192, 1e-7);
  EXPECT_NEAR(cost.ring_seconds_per_token, 96 * 1.9e-3 / 8192, 1e-7);
  EXPECT_THAT(ErrorOf({"h100", kBytescaleModel}), HasSubstr("leave the device"));
}

TEST(CostEstimateTest, AssumptionsAreSaid) {
  const absl::StatusOr<CostEstimate> estimate = EstimateCost({"h200", "llama-13b", 2});
  ASSERT_TRUE(estimate.ok());
  for (const char* part : {"llama-13b on h200, 2 a rank", "48%", "989", "644", "cuDNN", "50.0 GB/s",
                           "20 us", "tensor"}) {
    EXPECT_THAT(estimate->assumptions, HasSubstr(part));
  }
}

TEST(CostEstimateTest, UnknownNamesListTheKnownOnes) {
  EXPECT_THAT(ErrorOf({"tpu", "llama-7b"}), HasSubstr("\"tpu\"; there is: a100, h100"));
  EXPECT_THAT(ErrorOf({"h100", "bert"}), HasSubstr("\"bert\"; there is: bytescale-7b, llama-7b"));
  EXPECT_THAT(ErrorOf({"h100", "llama-7b", 5}), HasSubstr("does not divide the 32 heads"));
  EXPECT_THAT(ErrorOf({"h100", "llama-7b", 0}), HasSubstr("does not divide"));
}

}  // namespace
}  // namespace longspan
