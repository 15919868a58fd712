#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "parallel/cost_model.h"
#include "parallel/integer_cost.h"

namespace longspan {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// A valid file with `key` replaced by `text`, or left out where `text` is empty.
std::string FileWith(const std::string& key, const std::string& text) {
  std::string json = "{";
  for (const char* name : {"attention_seconds_per_pair", "linear_seconds_per_token",
                           "ring_seconds_per_token", "ring_step_seconds", "micro_batch_seconds"}) {
    const std::string value = name == key ? text : "1e-5";
    if (!value.empty()) absl::StrAppend(&json, "\"", name, "\": ", value, ", ");
  }
  if (key == "rank_speeds") absl::StrAppend(&json, "\"rank_speeds\": ", text, ", ");
  return json + "\"measured_on\": {\"any\": [1, null]}}";
}

std::string ErrorOf(const std::string& json) {
  const absl::StatusOr<CostModel> cost = CostModelFromJson(json, "cost.json");
  if (cost.ok()) return "";
  EXPECT_EQ(cost.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(cost.status().message());
}

TEST(CostModelJsonTest, RoundTripsToTheBit) {
  const CostModel cost = {1.0 / 3e9, 0.1, 5e-324, 0, kMaxCoefficientSeconds, {1, 0.7, 1.0 / 3}};
  const absl::StatusOr<CostModel> back = CostModelFromJson(ToJson(cost), "cost.json");
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(back->attention_seconds_per_pair, cost.attention_seconds_per_pair);
  EXPECT_EQ(back->linear_seconds_per_token, cost.linear_seconds_per_token);
  EXPECT_EQ(back->ring_seconds_per_token, cost.ring_seconds_per_token);
  EXPECT_EQ(back->ring_step_seconds, cost.ring_step_seconds);
  EXPECT_EQ(back->micro_batch_seconds, cost.micro_batch_seconds);
  EXPECT_EQ(back->rank_speeds, cost.rank_speeds);
  EXPECT_EQ(ToJson(CostModel{}).find("rank_speeds"), std::string::npos);
}

TEST(CostModelJsonTest, UnknownKeysAreIgnored) {
  const absl::StatusOr<CostModel> cost = CostModelFromJson(FileWith("", ""), "cost.json");
  ASSERT_TRUE(cost.ok()) << cost.status().ToString();
  EXPECT_EQ(cost->ring_step_seconds, 1e-5);
}

TEST(CostModelJsonTest, ErrorsNameFileAndKey) {
  const char* const kKey = "ring_step_seconds";
  EXPECT_EQ(ErrorOf(FileWith(kKey, "")), "cost.json: ring_step_seconds is missing");
  EXPECT_EQ(ErrorOf(FileWith(kKey, "\"fast\"")),
            "cost.json: ring_step_seconds must be a number, not string");
  EXPECT_THAT(ErrorOf(FileWith(kKey, "null")), HasSubstr("ring_step_seconds must be a number"));
  EXPECT_EQ(ErrorOf(FileWith(kKey, "-0.5")),
            "cost.json: ring_step_seconds is -0.5; it must lie between 0 and 16");
  EXPECT_THAT(ErrorOf(FileWith(kKey, "17")), HasSubstr("between 0 and 16"));
  EXPECT_THAT(ErrorOf(FileWith("attention_seconds_per_pair", "0.01")),
              HasSubstr("attention_seconds_per_pair is 0.01"));
  // Neither is JSON.
  EXPECT_THAT(ErrorOf(FileWith(kKey, "NaN")), StartsWith("cost.json: not a cost model in JSON"));
  EXPECT_THAT(ErrorOf(FileWith(kKey, "1e999")), StartsWith("cost.json: not a cost model in JSON"));
  for (const char* text : {"", "{", "attention_seconds_per_pair = 1"}) {
    EXPECT_THAT(ErrorOf(text), StartsWith("cost.json: not a cost model in JSON")) << text;
  }
  EXPECT_EQ(ErrorOf("[1, 2]"), "cost.json: a cost model is a JSON object, not array");
}

TEST(CostModelJsonTest, RankSpeedsAreChecked) {
  EXPECT_THAT(ErrorOf(FileWith("rank_speeds", "1.5")), HasSubstr("rank_speeds must be an array"));
  EXPECT_THAT(ErrorOf(FileWith("rank_speeds", "[1, 0]")), HasSubstr("rank_speeds[1] is 0"));
  EXPECT_THAT(ErrorOf(FileWith("rank_speeds", "[true]")), HasSubstr("rank_speeds[0] must be"));
  EXPECT_EQ(ErrorOf(FileWith("rank_speeds", "[1, 1.25]")), "");
}

}  // namespace
}  // namespace longspan
