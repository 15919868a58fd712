#include "optim/sharded_sgd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace longspan {
namespace {

using ::testing::HasSubstr;

// torch_rates.json holds what PyTorch's SGD makes of 96 parameters in FP64 (torch_rates.py). Two
// buckets of 48 over three ranks; the first 40 and the last 30 parameters decay, the others do not.
constexpr int64_t kElements = 96, kBuckets = 2;

std::vector<OwnedRange> OwnedBy(int rank, int ranks) {
  const int64_t part = kElements / kBuckets / ranks;
  std::vector<OwnedRange> owned;
  for (int64_t bucket = 0; bucket < kBuckets; ++bucket) {
    const int64_t begin = bucket * kElements / kBuckets + rank * part;
    for (int64_t i = begin; i < begin + part; ++i)
      owned.push_back({bucket, i, bucket * part + i - begin, 1, i < 40 || i >= 66});
  }
  return owned;
}

std::vector<float> AsFloats(const nlohmann::json& values) {
  std::vector<float> floats;
  for (const double value : values) floats.push_back(static_cast<float>(value));
  return floats;
}

TEST(ShardedSgdTest, RanksTogetherMakeTheStepsThatPyTorchMakes) {
  std::ifstream file(LONGSPAN_TEST_DATA "/torch_rates.json");
  const nlohmann::json recorded = nlohmann::json::parse(file)["sgd"];
  const SgdConfig config{recorded["momentum"], recorded["weight_decay"]};
  const auto device = Device::OpenCpu(2);
  for (const int ranks : {1, 3}) {
    Stream stream = device->CreateStream("test");
    std::vector<float> parameters = AsFloats(recorded["initial"]);
    std::vector<ShardedSgd> optimizers;
    for (int rank = 0; rank < ranks; ++rank) {
      absl::StatusOr<ShardedSgd> made =
          ShardedSgd::Create(config, OwnedBy(rank, ranks), kBuckets, kElements / ranks, *device);
      ASSERT_TRUE(made.ok()) << made.status();
      optimizers.push_back(*std::move(made));
    }
    const TensorView arena = TensorView::Of(parameters.data(), {kElements});
    for (size_t step = 0; step < recorded["gradients"].size(); ++step) {
      std::vector<float> gradients = AsFloats(recorded["gradients"][step]);
      for (float& gradient : gradients) gradient *= 8;  // sums over 8 tokens
      for (ShardedSgd& optimizer : optimizers) {
        optimizer.Update({.rate = recorded["rates"][step], .gradient_scale = 0.125}, arena,
                         TensorView::Of(gradients.data(), {kElements}),
                         std::vector<Event>(kBuckets), stream);
      }
      ASSERT_TRUE(stream.Synchronize().ok());
      for (int64_t i = 0; i < kElements; ++i) {
        EXPECT_NEAR(parameters[i], recorded["parameters"][step][i], 2e-6) << step << " " << i;
      }
    }
    for (int64_t i = 0; i < kElements / kBuckets / ranks; ++i)
      EXPECT_NEAR(optimizers[0].momentum().data<float>()[i], recorded["momenta"][i], 1e-5);
  }
}

TEST(ShardedSgdTest, ConfigurationOutOfRangeNamesTheKey) {
  const auto device = Device::OpenCpu(1);
  EXPECT_THAT(std::string(ShardedSgd::Create({1, 0}, {}, 0, 0, *device).status().message()),
              HasSubstr("momentum"));
  EXPECT_THAT(std::string(ShardedSgd::Create({0.9, NAN}, {}, 0, 0, *device).status().message()),
              HasSubstr("weight_decay"));
}

}  // namespace
}  // namespace longspan
