#include "optim/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>

#include "nlohmann/json.hpp"

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

nlohmann::json Vectors() {
  std::ifstream file(LONGSPAN_TEST_DATA "/refined_vectors.json");
  return nlohmann::json::parse(file);
}

TEST(ScheduleTest, RexFollowsItsPaper) {
  const nlohmann::json vectors = Vectors();
  for (const auto& [steps, curves] : vectors["rex"].items()) {
    // The paper's curves reach z = 0, which is the step after the last.
    ScheduleConfig config{"rex", 1, 0, 0, std::stoi(steps)};
    const Schedule paper = Make(config);
    config.profile.rex_b = 0.9;
    const Schedule variant = Make(config);
    for (int64_t t = 0; t < config.steps; ++t) {
      EXPECT_NEAR(paper.Rate(t), curves["paper_d0.5"][t], 1e-12);
      EXPECT_NEAR(variant.Rate(t), curves["vassi_d0.9"][t], 1e-12);
    }
  }
  const Schedule schedule = Make({"rex", 1, 0, 0, 100});
  EXPECT_NEAR(schedule.Rate(25), 0.857, 5e-4);
  EXPECT_NEAR(schedule.Rate(90), 0.182, 5e-4);
}

TEST(ScheduleTest, ProfilesAtMarkedSteps) {
  const struct {
    const char* kind;
    std::vector<std::pair<int64_t, double>> rates;  // of 100 updates without a warm-up
  } cases[] = {
      {"constant", {{0, 1}, {99, 1}}},
      {"linear", {{0, 1}, {50, 0.5}, {99, 0.01}}},
      {"cosine", {{0, 1}, {50, 0.5}, {25, (1 + std::sqrt(0.5)) / 2}}},
      {"wsd", {{0, 1}, {80, 1}, {81, 0.95}, {90, 0.5}, {99, 0.05}}},
      {"inverse-sqrt", {{0, 1}, {3, 0.5}, {99, 0.1}}},
      {"polynomial", {{0, 1}, {50, 0.25}, {90, 0.01}}},
      {"exponential", {{0, 1}, {50, std::exp(-1.5)}, {99, std::exp(-2.97)}}},
      {"step", {{0, 1}, {49, 1}, {50, 0.1}, {74, 0.1}, {75, 0.01}, {99, 0.01}}},
  };
  for (const auto& c : cases) {
    const Schedule schedule = Make({c.kind, 2, 0, 0, 100});
    for (const auto& [step, rate] : c.rates) {
      EXPECT_NEAR(schedule.Rate(step), 2 * rate, 1e-14) << c.kind << " " << step;
    }
  }
}

TEST(ScheduleTest, ParametersOfShapes) {
  ScheduleConfig config{"wsd", 1, 0, 0, 100};
  config.profile.cooldown = 0.5;
  config.profile.cooldown_shape = "sqrt";
  EXPECT_DOUBLE_EQ(Make(config).Rate(62), 1 - std::sqrt(12.0 / 50));
  config.profile.cooldown = 1;
  EXPECT_DOUBLE_EQ(Make(config).Rate(25), 0.5);
  config = {"polynomial", 1, 0, 0, 100};
  config.profile.power = 1;
  EXPECT_EQ(Make(config).Rates(), Make({"linear", 1, 0, 0, 100}).Rates());
  config = {"step", 1, 0, 0, 100};
  config.profile.milestones = {0.07, 0.57};  // neither is exact in binary
  config.profile.milestone_factor = 0.5;
  const Schedule step = Make(config);
  EXPECT_EQ(step.Rate(6), 1);
  EXPECT_EQ(step.Rate(7), 0.5);
  EXPECT_EQ(step.Rate(56), 0.5);
  EXPECT_EQ(step.Rate(57), 0.25);
  // With a warm-up of w steps the inverse square root goes on as sqrt(w / step number).
  EXPECT_DOUBLE_EQ(Make({"inverse-sqrt", 1, 16, 0, 100}).Rate(16 + 48), 0.5);
}

TEST(ScheduleTest, SamplingRatesAreThoseOfTheRexPaper) {
  const nlohmann::json vectors = Vectors();
  int curves = 0;
  for (const auto& [name, values] : vectors["sampled_profiles_T100"]["values"].items()) {
    const std::string profile = name.substr(0, name.find('|')),
                      rate = name.substr(name.find('|') + 1);
    ScheduleConfig config{profile == "exp" ? "exponential" : profile, 1, 0, 0, 100};
    // "every-times": 10-10, 5-25, 1-100; the others are points in percent.
    if (rate == "50-75") config.sampling.points = {0.5, 0.75};
    if (rate == "33-66") config.sampling.points = {0.33, 0.66};
    if (rate == "25-50-75") config.sampling.points = {0.25, 0.5, 0.75};
    if (rate == "10-10") config.sampling.share = 0.1;
    if (rate == "5-25") config.sampling.every = 5;
    const Schedule schedule = Make(config);
    for (int64_t t = 0; t < 100; ++t) {
      EXPECT_NEAR(schedule.Rate(t), values[t], 1e-12) << name << " " << t;
    }
    ++curves;
  }
  EXPECT_EQ(curves, 18);
}

TEST(ScheduleTest, SamplingCountsFromTheEndOfTheWarmUp) {
  ScheduleConfig config{"linear", 1, 10, 0, 30};
  config.sampling.every = 7;
  const Schedule schedule = Make(config);
  EXPECT_DOUBLE_EQ(schedule.Rate(4), 0.5);
  EXPECT_DOUBLE_EQ(schedule.Rate(16), 1);
  EXPECT_DOUBLE_EQ(schedule.Rate(17), 13.0 / 20);
  EXPECT_DOUBLE_EQ(schedule.Rate(23), 13.0 / 20);
  EXPECT_DOUBLE_EQ(schedule.Rate(29), 6.0 / 20);
}

TEST(ScheduleTest, SharesThatAreNoWholeUpdatesAreRounded) {
  SamplingRate thirds;
  thirds.share = 1.0 / 3;
  for (const int64_t steps : {1, 2, 3, 7, 100, 1000}) {
    int64_t refreshes = 0;
    for (int64_t t = 0; t < steps; ++t) {
      const int64_t at = LastRefresh(thirds, t, steps);
      ASSERT_GE(at, 0);
      ASSERT_LE(at, t);
      refreshes += at == t ? 1 : 0;
    }
    EXPECT_EQ(refreshes, std::min<int64_t>(steps, 3)) << steps;
  }
}

TEST(ScheduleTest, ListsCoverTheWholeRun) {
  ScheduleConfig config{"refined", 2, 2, 0.5, 4};
  config.values = {0.5, 1, 0.5, 0};
  EXPECT_EQ(Make(config).Rates(), std::vector<double>({1.5, 2, 1.5, 1}));
  EXPECT_EQ(Make(config).warmup_steps(), 0);
  config.kind = "table";
  EXPECT_EQ(Make(config).Rates(), config.values);
  config.steps = 5;
  EXPECT_THAT(std::string(Schedule::Create(config).status().message()),
              HasSubstr("4 values for a run of 5 steps"));
  config.values = {1, 2, std::nan(""), 1, 1};
  EXPECT_THAT(std::string(Schedule::Create(config).status().message()),
              HasSubstr("value 3 of table is nan"));
}

TEST(ScheduleTest, APlanReadsBackToTheSameRates) {
  for (const std::string& kind : Schedule::Kinds()) {
    ScheduleConfig config{kind, 0.1, 0.05, 0.01, 77};
    config.profile = {0.3, 0.4, "sqrt", 1.7, 2.2, {0.1, 0.9}, 0.3};
    config.sampling.points = {0.2, 0.7};
    config.note = "a \"note\"";
    if (kind == "refined" || kind == "table") {
      for (int i = 0; i < 77; ++i) config.values.push_back(1.0 / (i + 1));
    }
    const Schedule schedule = Make(config);
    const absl::StatusOr<Schedule> back = Schedule::FromJson(schedule.ToJson());
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->Rates(), schedule.Rates()) << kind;
    EXPECT_EQ(back->ToJson(), schedule.ToJson());
  }
  for (const char* text : {"", "{}", "[]", "{\"kind\": 3}",
                           "{\"kind\": \"new\", \"peak\": 1, \"warmup_steps\": 0, \"floor\": 0, "
                           "\"steps\": 3}"}) {
    EXPECT_EQ(Schedule::FromJson(text).status().code(), absl::StatusCode::kDataLoss) << text;
  }
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
    ScheduleConfig config{kind, 1, 0, 0, 1};
    if (kind == "refined" || kind == "table") config.values = {1};
    EXPECT_TRUE(Schedule::Create(config).ok());
  }
  EXPECT_THAT(Schedule::Kinds(),
              ::testing::ElementsAre("constant", "linear", "rex", "cosine", "wsd", "inverse-sqrt",
                                     "polynomial", "exponential", "step", "refined", "table"));
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

TEST(ScheduleTest, ParametersOutOfRangeNameTheKey) {
  const std::pair<const char*, void (*)(ScheduleConfig&)> cases[] = {
      {"schedule.rex_b", [](ScheduleConfig& c) { c.profile.rex_b = 1; }},
      {"schedule.cooldown", [](ScheduleConfig& c) { c.profile.cooldown = 0; }},
      {"schedule.cooldown_shape", [](ScheduleConfig& c) { c.profile.cooldown_shape = "cube"; }},
      {"schedule.power", [](ScheduleConfig& c) { c.profile.power = std::nan(""); }},
      {"schedule.decay", [](ScheduleConfig& c) { c.profile.decay = -1; }},
      {"schedule.milestones",
       [](ScheduleConfig& c) {
         c.profile.milestones = {0.5, 0.4};
       }},
      {"schedule.milestone_factor", [](ScheduleConfig& c) { c.profile.milestone_factor = 0; }},
      {"schedule.sampling", [](ScheduleConfig& c) { c.sampling.every = 0; }},
      {"schedule.sampling",
       [](ScheduleConfig& c) {
         c.sampling.points = {0.5, 1};
       }},
  };
  for (const auto& [key, change] : cases) {
    ScheduleConfig config{"linear", 1, 0, 0, 10};
    change(config);
    const absl::Status status = Schedule::Create(config).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  }
}

TEST(ScheduleDeathTest, StepsOutsideTheRun) {
  const Schedule schedule = Make({"linear", 1, 0, 0, 10});
  EXPECT_DEATH(schedule.Rate(10), "a step of the run");
  EXPECT_DEATH(schedule.Rate(-1), "a step of the run");
}

}  // namespace
}  // namespace longspan
