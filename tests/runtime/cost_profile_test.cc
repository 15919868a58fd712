#include "runtime/cost/cost_profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>

#include "parallel/integer_cost.h"
#include "parallel/transport/rank_threads.h"
#include "runtime/cost/cost_file.h"

namespace longspan {
namespace {

ProfileRequest Tiny() {
  ProfileRequest request;
  request.model.layers = 1;
  request.model.width = 32;
  request.model.heads = 2;
  request.model.kv_heads = 1;
  request.model.ffn = 64;
  request.model.vocab = 64;
  request.micro_batch_tokens = 1024;
  request.seconds = 1;
  return request;
}

TEST(CostProfileTest, TwoRanksGiveAFileThatLoads) {
  CostProfile profile;
  const absl::Status status = RunRanks(2, [&](Transport& transport, Device& device) {
    absl::StatusOr<CostProfile> mine = ProfileCost(Tiny(), transport, device);
    if (mine.ok() && transport.rank() == 0) profile = *mine;
    return mine.status();
  });
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(profile.rows.size(), 16u);  // 8 lengths on one rank and on two
  EXPECT_GE(profile.rounds, 3);
  EXPECT_EQ(profile.measured_speeds.size(), 2u);
  const std::string path = ::testing::TempDir() + "/cost_profile_test.json";
  ASSERT_TRUE(WriteCostFile(profile.cost, path).ok());
  const absl::StatusOr<CostModel> cost = ReadCostFile(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(cost.ok()) << cost.status().ToString();
  EXPECT_TRUE(IntegerCostModel::Create(*cost, 2).ok());
  // Which of them a second on a busy machine can tell from zero is chance; that work takes time is
  // not.
  EXPECT_GT(cost->attention_seconds_per_pair + cost->linear_seconds_per_token, 0);
  for (const double value :
       {cost->attention_seconds_per_pair, cost->linear_seconds_per_token,
        cost->ring_seconds_per_token, cost->ring_step_seconds, cost->micro_batch_seconds}) {
    EXPECT_TRUE(std::isfinite(value) && value >= 0) << value;
  }
}

TEST(CostProfileTest, RefusesTinyMicroBatches) {
  ProfileRequest request = Tiny();
  request.micro_batch_tokens = 32;
  const absl::Status status = RunRanks(1, [&](Transport& transport, Device& device) {
    return ProfileCost(request, transport, device).status();
  });
  EXPECT_NE(std::string(status.message()).find("at least 64"), std::string::npos);
}

}  // namespace
}  // namespace longspan
