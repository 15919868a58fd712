// Our rates against PyTorch's own schedulers, step by step.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "nlohmann/json.hpp"
#include "optim/schedule.h"

namespace longspan {
namespace {

TEST(ScheduleTorchTest, SharedSchedulesHaveTheSameRates) {
  std::ifstream file(LONGSPAN_TEST_DATA "/torch_rates.json");
  const nlohmann::json recorded = nlohmann::json::parse(file);
  std::map<std::string, ScheduleConfig> ours;
  for (const auto& [name, rates] : recorded["rates"].items()) {
    ScheduleConfig& config = ours[name];
    config.kind = name.substr(0, name.find_first_of(", "));
    config.peak = recorded["peak"];
    config.steps = recorded["steps"];
  }
  ASSERT_EQ(ours.size(), 12u);
  ours.at("cosine, floor 0.1").floor = 0.1;
  ours.at("polynomial, power 1.7").profile.power = 1.7;
  for (const char* name : {"linear after a warm-up", "cosine after a warm-up"})
    ours.at(name).warmup = recorded["warmup"];
  for (const auto& [name, config] : ours) {
    const absl::StatusOr<Schedule> schedule = Schedule::Create(config);
    ASSERT_TRUE(schedule.ok()) << name << ": " << schedule.status();
    const nlohmann::json& theirs = recorded["rates"][name];
    ASSERT_EQ(static_cast<int64_t>(theirs.size()), config.steps);
    // Most of theirs multiply the rate of the step before, so rounding adds up.
    for (int64_t t = 0; t < config.steps; ++t)
      EXPECT_NEAR(schedule->Rate(t), theirs[t], 1e-13 * config.peak) << name << ", update " << t;
  }
}

}  // namespace
}  // namespace longspan
