#include "optim/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace longspan {
namespace {

using ::testing::HasSubstr;

Schedule Make(const ScheduleConfig& config) {
  absl::StatusOr<Schedule> schedule = Schedule::Create(config);
  EXPECT_TRUE(schedule.ok()) << schedule.status();
  return *schedule;
}

TEST(ScheduleTest, LinearFallsToOneStepAboveZero) {
  const Schedule schedule = Make({"linear", 0.5, 0, 0, 10});
  for (int64_t t = 0; t < 10; ++t) {
    EXPECT_DOUBLE_EQ(schedule.Rate(t), 0.5 * (1 - static_cast<double>(t) / 10));
  }
  EXPECT_DOUBLE_EQ(schedule.Rate(9), 0.05);
}

TEST(ScheduleTest, TheProfileRunsOverTheUpdatesAfterWarmUp) {
  // 4 of 20 updates warm up; the profile has 16 of its own.
  for (const double warmup : {0.2, 4.0}) {
    const Schedule schedule = Make({"linear", 1e-3, warmup, 0, 20});
    EXPECT_EQ(schedule.warmup_steps(), 4);
    for (int64_t t = 0; t < 4; ++t) {
      EXPECT_DOUBLE_EQ(schedule.Rate(t), 1e-3 * static_cast<double>(t + 1) / 4);
    }
    for (int64_t t = 0; t < 16; ++t) {
      EXPECT_DOUBLE_EQ(schedule.Rate(4 + t), 1e-3 * (1 - static_cast<double>(t) / 16));
    }
  }
}

TEST(ScheduleTest, TheFloorLiftsTheProfileButNotTheWarmUp) {
  const Schedule schedule = Make({"linear", 2.0, 10, 0.1, 30});
  EXPECT_DOUBLE_EQ(schedule.Rate(0), 0.2);
  EXPECT_DOUBLE_EQ(schedule.Rate(10), 2.0);
  EXPECT_DOUBLE_EQ(schedule.Rate(20), 2.0 * (0.1 + 0.9 * 0.5));
  EXPECT_DOUBLE_EQ(schedule.Rate(29), 2.0 * (0.1 + 0.9 * 0.05));
  EXPECT_DOUBLE_EQ(Make({"linear", 2.0, 0, 1, 30}).Rate(29), 2.0);
}

TEST(ScheduleTest, ConstantStays) {
  const Schedule schedule = Make({"constant", 3e-4, 2, 0.5, 6});
  EXPECT_DOUBLE_EQ(schedule.Rate(0), 1.5e-4);
  for (int64_t t = 1; t < 6; ++t) EXPECT_DOUBLE_EQ(schedule.Rate(t), 3e-4);
}

TEST(ScheduleTest, WarmUpIsAShareBelowOneAndStepsFromOneOn) {
  EXPECT_EQ(Make({"linear", 1, 0.02, 0, 200}).warmup_steps(), 4);
  EXPECT_EQ(Make({"linear", 1, 0.02, 0, 10}).warmup_steps(), 0);
  EXPECT_EQ(Make({"linear", 1, 0.05, 0, 30}).warmup_steps(), 2);
  EXPECT_EQ(Make({"linear", 1, 1, 0, 200}).warmup_steps(), 1);
  const Schedule all = Make({"linear", 1, 8, 0, 8});
  EXPECT_DOUBLE_EQ(all.Rate(7), 1.0);
}

TEST(ScheduleTest, JsonGivesTheNumbersBack) {
  EXPECT_EQ(Make({"linear", 0.1, 0.02, 0.3, 200}).ToJson(),
            "{\"kind\": \"linear\", \"peak\": 0.1, \"warmup_steps\": 4, \"floor\": 0.3, "
            "\"steps\": 200}");
  const std::string json = Make({"constant", 1.0 / 3, 0, 0, 1}).ToJson();
  const size_t at = json.find("\"peak\": ") + 8;
  EXPECT_EQ(std::stod(json.substr(at)), 1.0 / 3);
}

TEST(ScheduleTest, UnknownKindsListTheKnownOnes) {
  const absl::Status status = Schedule::Create({"liner", 1, 0, 0, 1}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"liner\" is unknown"));
  for (const std::string& kind : Schedule::Kinds()) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(kind));
    EXPECT_TRUE(Schedule::Create({kind, 1, 0, 0, 1}).ok());
  }
  EXPECT_THAT(Schedule::Kinds(), ::testing::UnorderedElementsAre("constant", "linear"));
}

TEST(ScheduleTest, ValuesOutOfRangeNameTheKey) {
  const double nan = std::nan("");
  const struct {
    ScheduleConfig config;
    const char* message;
  } cases[] = {
      {{"linear", 0, 0, 0, 10}, "schedule.peak is 0"},
      {{"linear", -1, 0, 0, 10}, "schedule.peak"},
      {{"linear", nan, 0, 0, 10}, "schedule.peak"},
      {{"linear", HUGE_VAL, 0, 0, 10}, "schedule.peak"},
      {{"linear", 1, -0.1, 0, 10}, "schedule.warmup is -0.1"},
      {{"linear", 1, 11, 0, 10}, "schedule.warmup"},
      {{"linear", 1, 2.5, 0, 10}, "schedule.warmup is 2.5"},
      {{"linear", 1, nan, 0, 10}, "schedule.warmup"},
      {{"linear", 1, 0, -0.1, 10}, "schedule.floor"},
      {{"linear", 1, 0, 1.5, 10}, "schedule.floor is 1.5"},
      {{"linear", 1, 0, nan, 10}, "schedule.floor"},
      {{"linear", 1, 0, 0, 0}, "0 steps"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Schedule::Create(c.config).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(ScheduleDeathTest, StepsOutsideTheRun) {
  const Schedule schedule = Make({"linear", 1, 0, 0, 10});
  EXPECT_DEATH(schedule.Rate(10), "a step of the run");
  EXPECT_DEATH(schedule.Rate(-1), "a step of the run");
}

}  // namespace
}  // namespace longspan
