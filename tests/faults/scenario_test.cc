// The files of tests/faults/scenarios, one case each, over several seeds.
//
//   LONGSPAN_SEEDS   times as many seeds as the file says
//   LONGSPAN_SEED    this seed alone, to replay a failure
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "../checkpoint/scratch_directory.h"
#include "absl/strings/str_cat.h"
#include "scenario.h"
#include "scenario_run.h"

namespace longspan {
namespace {

std::vector<std::string> ScenarioFiles() {
  std::vector<std::string> files;
  const std::string folder = absl::StrCat(LONGSPAN_TEST_DATA, "/scenarios");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".toml") files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

int64_t Setting(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

class ScenarioTest : public testing::TestWithParam<std::string> {};

TEST_P(ScenarioTest, Holds) {
  const absl::StatusOr<Scenario> scenario = ReadScenario(GetParam());
  ASSERT_TRUE(scenario.ok()) << scenario.status();
  const int64_t only = Setting("LONGSPAN_SEED", 0);
  const int64_t seeds = scenario->seeds * Setting("LONGSPAN_SEEDS", 1);
  ScenarioTally tally;
  for (int64_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : seeds); ++seed) {
    ScratchDirectory scratch;
    const std::string problem =
        RunScenario(*scenario, static_cast<uint64_t>(seed), scratch / "checkpoints", tally);
    ASSERT_EQ(problem, "") << "once more: LONGSPAN_SEED=" << seed
                           << " faults_scenario_test --gtest_filter='*/" << scenario->name << "'";
  }
  std::string line =
      absl::StrCat(scenario->name, ": ", seeds, " seeds, ", tally.attempts, " attempts; saves:");
  for (const auto& [end, count] : tally.ends) absl::StrAppend(&line, " ", end, " ", count);
  for (const auto& [fault, count] : tally.injected) {
    absl::StrAppend(&line, "\n    ", count, " x ", fault);
  }
  for (const auto& [probe, count] : tally.probes) {
    absl::StrAppend(&line, "\n    ", count, " x ", probe);
  }
  std::printf("%s\n", line.c_str());
  if (only > 0) return;
  // A scenario in which nothing went wrong, or not what it is about, has shown nothing.
  for (const auto& [fault, count] : tally.injected) EXPECT_GE(count, 1) << fault;
  for (const std::string& probe : scenario->probes) {
    ASSERT_NE(std::find(KnownProbes().begin(), KnownProbes().end(), probe), KnownProbes().end())
        << "there is no probe '" << probe << "'";
    EXPECT_GE(tally.probes[probe], 1) << "not hit: " << probe;
  }
}

INSTANTIATE_TEST_SUITE_P(Faults, ScenarioTest, testing::ValuesIn(ScenarioFiles()),
                         [](const auto& param) {
                           return std::filesystem::path(param.param).stem().string();
                         });

TEST(ScenariosTest, EveryProbeIsAskedForBySome) {
  std::vector<std::string> asked;
  for (const std::string& file : ScenarioFiles()) {
    const auto scenario = ReadScenario(file);
    ASSERT_TRUE(scenario.ok()) << scenario.status();
    asked.insert(asked.end(), scenario->probes.begin(), scenario->probes.end());
  }
  for (const std::string& probe : KnownProbes()) {
    EXPECT_NE(std::find(asked.begin(), asked.end(), probe), asked.end()) << probe;
  }
}

}  // namespace
}  // namespace longspan
