#include "runtime/cost/cost_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace longspan {
namespace {

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(CostFileTest, EveryVersionThatLandedLoads) {
  const absl::StatusOr<CostModel> cost = ReadCostFile(LONGSPAN_TEST_DATA "/../golden/cost-v1.json");
  ASSERT_TRUE(cost.ok()) << cost.status().ToString();
  EXPECT_EQ(cost->attention_seconds_per_pair, 8.0e-9);
  EXPECT_EQ(cost->linear_seconds_per_token, 1.055e-4);
  EXPECT_EQ(cost->ring_seconds_per_token, 2.23e-5);
  EXPECT_EQ(cost->ring_step_seconds, 1.92e-3);
  EXPECT_EQ(cost->micro_batch_seconds, 8.0e-3);
  EXPECT_TRUE(cost->rank_speeds.empty());
}

TEST(CostFileTest, WritesWhatItReads) {
  const std::string path = ::testing::TempDir() + "/cost_file_test.json";
  ASSERT_TRUE(WriteCostFile({1e-9, 2e-6, 3e-7, 4e-4, 5e-3, {1, 0.9}}, path).ok());
  const absl::StatusOr<CostModel> cost = ReadCostFile(path);
  ASSERT_TRUE(cost.ok()) << cost.status().ToString();
  EXPECT_EQ(cost->ring_step_seconds, 4e-4);
  EXPECT_EQ(cost->rank_speeds, (std::vector<double>{1, 0.9}));
  std::filesystem::remove(path);
}

TEST(CostFileTest, ErrorsNameTheFile) {
  EXPECT_EQ(Message(ReadCostFile("/no/such.json").status()),
            "/no/such.json: cannot read the cost file");
  const std::string folder = ::testing::TempDir();
  EXPECT_EQ(Message(ReadCostFile(folder).status()), folder + ": cannot read the cost file");
  EXPECT_EQ(Message(WriteCostFile({}, "/no/such/folder/cost.json")),
            "/no/such/folder/cost.json: cannot write the cost file");
  const std::string path = folder + "/cost_file_empty.json";
  std::ofstream(path).close();
  EXPECT_NE(Message(ReadCostFile(path).status()).find(path + ": not a cost model in JSON"),
            std::string::npos);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace longspan
