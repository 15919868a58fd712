#include "optim/refine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>
#include <string>

#include "nlohmann/json.hpp"
#include "optim/portable_shape.h"
#include "optim/schedule.h"

namespace longspan {
namespace {

using ::testing::HasSubstr;
using Doubles = std::vector<double>;

RefinedSchedule Refined(const Doubles& norms, const RefineOptions& options = {}) {
  absl::StatusOr<RefinedSchedule> refined = Refine(norms, options);
  EXPECT_TRUE(refined.ok()) << refined.status();
  return refined.ok() ? *refined : RefinedSchedule();
}

void ExpectValid(const RefinedSchedule& refined, int64_t steps) {
  ASSERT_EQ(static_cast<int64_t>(refined.factors.size()), steps);
  for (const double factor : refined.factors) {
    EXPECT_TRUE(factor > 0 && factor <= 1) << factor;
  }
  EXPECT_EQ(*std::max_element(refined.factors.begin(), refined.factors.end()), 1);
  EXPECT_GE(refined.headroom, 0);
  EXPECT_LE(refined.headroom, 1);
}

// Norms as language models have them: high at first, then slowly falling, with noise.
Doubles Falling(int64_t n, double exponent = 0.25, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<double> noise(0, 0.1);
  Doubles norms;
  for (int64_t t = 0; t < n; ++t) {
    norms.push_back(std::exp(noise(random)) *
                    (1 + 4 * std::pow(1.0 + static_cast<double>(t), -exponent)));
  }
  return norms;
}

TEST(RefineTest, CompatibilityModeGivesThePublishedSchedules) {
  std::ifstream file(LONGSPAN_TEST_DATA "/refined_vectors.json");
  const nlohmann::json vectors = nlohmann::json::parse(file);
  ASSERT_EQ(vectors["cases"].size(), 6u);
  for (const nlohmann::json& c : vectors["cases"]) {
    const Doubles norms = c["G"];
    for (const char* name : {"l1", "l2"}) {
      RefineOptions options;
      options.norm = name[1] == '1' ? GradientNorm::kL1 : GradientNorm::kL2;
      options.compatible = true;
      const RefinedSchedule refined = Refined(norms, options);
      options.filter_share = 0;
      const RefinedSchedule unfiltered = Refined(norms, options);
      const std::string suffix = std::string("_sched_") + name + "_max1";
      for (size_t t = 0; t < norms.size(); ++t) {
        EXPECT_NEAR(refined.norms[t], c["G_filtered"][t], 1e-12);
        EXPECT_NEAR(refined.factors[t], c["filtered" + suffix][t], 1e-12);
        EXPECT_NEAR(unfiltered.factors[t], c["nofilter" + suffix][t], 1e-12);
      }
      EXPECT_NEAR(refined.headroom, c[std::string("headroom_") + name], 1e-12);
    }
  }
}

TEST(RefineTest, FlatNormsGiveLinearToTheBit) {
  for (const double norm : {1.0, 0.1, 3.7, 1e-30, 1e30, 1.0 / 3}) {
    for (const int64_t steps : {1, 2, 3, 10, 97, 1000}) {
      for (const int64_t recorded : {steps, int64_t{5}, int64_t{333}}) {
        for (const GradientNorm kind : {GradientNorm::kL1, GradientNorm::kL2}) {
          Doubles norms(recorded, norm);
          if (recorded > 4) norms[3] = NAN;
          const RefinedSchedule refined = Refined(norms, {.norm = kind, .steps = steps});
          ExpectValid(refined, steps);
          EXPECT_EQ(refined.fallback, "");
          EXPECT_EQ(refined.headroom, 0);
          ScheduleConfig linear;
          linear.peak = 1;
          linear.steps = steps;
          ASSERT_EQ(refined.factors, Schedule::Create(linear)->Rates()) << norm << " " << steps;
        }
      }
    }
  }
}

TEST(RefineTest, ScaleDoesNotMatter) {
  const Doubles norms = Falling(500);
  for (const GradientNorm kind : {GradientNorm::kL1, GradientNorm::kL2}) {
    const RefinedSchedule once = Refined(norms, {.norm = kind, .steps = 300});
    for (const double scale : {3.0, 1e-30, 1e30, 1e-150, 1e150}) {
      Doubles scaled = norms;
      for (double& norm : scaled) norm *= scale;
      const RefinedSchedule refined = Refined(scaled, {.norm = kind, .steps = 300});
      for (size_t t = 0; t < 300; ++t) {
        EXPECT_NEAR(refined.factors[t], once.factors[t], 1e-12);
        EXPECT_NEAR(refined.norms[t], once.norms[t] * scale, 1e-12 * once.norms[t] * scale);
      }
      EXPECT_NEAR(refined.headroom, once.headroom, 1e-12);
    }
  }
}

TEST(RefineTest, AwkwardNormsGiveAValidScheduleOrARefusal) {
  const double nan = std::nan(""), inf = HUGE_VAL;
  const Doubles accepted[] = {
      {1},           {1, 2},          {2, 1},       {1, 2, 3},        {nan, 1},
      {1, nan, nan}, {nan, nan, 4},   {inf, 1, 2},  {1e-30, 1, 1e30}, {1e30, 1e30, 1e-30},
      {1, 0, 1},     {1, 1, 1, 0, 0}, {1, -inf, 1}, {1e-300, 1e-300}, {1e300, 1e300, 1e300},
  };
  for (const Doubles& norms : accepted) {
    for (const GradientNorm kind : {GradientNorm::kL1, GradientNorm::kL2}) {
      for (const int64_t steps : {0, 1, 2, 3, 50}) {
        const absl::StatusOr<RefinedSchedule> refined =
            Refine(norms, {.norm = kind, .steps = steps});
        if (std::count(norms.begin(), norms.end(), -inf) > 0) {
          EXPECT_FALSE(refined.ok());
          continue;
        }
        ASSERT_TRUE(refined.ok()) << refined.status() << " " << ::testing::PrintToString(norms);
        ExpectValid(*refined, steps == 0 ? static_cast<int64_t>(norms.size()) : steps);
      }
    }
  }
  const std::pair<Doubles, const char*> refused[] = {
      {{}, "no gradient norms"},           {{0, 0, 0}, "finite and positive"},
      {{nan, inf}, "finite and positive"}, {{1, -2, 1}, "norm 2 is -2"},
      {{1, 0, 0, 0, 0}, "are zero"},
  };
  for (const auto& [norms, message] : refused) {
    const absl::Status status = Refine(norms, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
  for (const double bad : {nan, inf, 0.0}) {
    EXPECT_THAT(std::string(Refine({1, bad, 1}, {.compatible = true}).status().message()),
                HasSubstr("compatibility mode cleans nothing"));
  }
  EXPECT_FALSE(Refine({1, 1}, {.steps = 3, .compatible = true}).ok());
  EXPECT_FALSE(Refine({1, 1}, {.steps = -1}).ok());
  EXPECT_FALSE(Refine({1, 1}, {.filter_share = 2}).ok());
  EXPECT_FALSE(Refine({1, 1}, {.blend = nan}).ok());
}

TEST(RefineTest, MissingNormsAreInterpolatedInLog) {
  Doubles norms(50, 1.0);
  norms[20] = 1;
  norms[21] = norms[22] = norms[23] = NAN;
  norms[24] = 16;
  RefineOptions options;
  options.filter_share = 0;
  const RefinedSchedule refined = Refined(norms, options);
  EXPECT_EQ(refined.interpolated, 3);
  EXPECT_NEAR(refined.norms[21], 2, 1e-12);
  EXPECT_NEAR(refined.norms[22], 4, 1e-12);
  EXPECT_NEAR(refined.norms[23], 8, 1e-12);
}

TEST(RefineTest, TheFirstNormsAreNotBelievedAndSmallOnesAreLifted) {
  Doubles norms(3000, 2.0);
  norms[0] = 1e6;
  norms[1] = 1e5;
  norms[2] = 1e4;  // the third of 0.001 * 3000
  norms[100] = 1e-9;
  RefineOptions options;
  options.filter_share = 0;
  const RefinedSchedule refined = Refined(norms, options);
  EXPECT_EQ(refined.norms[0], 2);
  EXPECT_EQ(refined.norms[2], 2);
  EXPECT_EQ(refined.norms[100], 0.5);
}

TEST(RefineTest, RetimingKeepsProgress) {
  Doubles norms;
  for (int i = 0; i < 400; ++i) norms.push_back(std::exp(-0.002 * i));
  RefineOptions options;
  options.filter_share = 0;
  for (const int64_t steps : {40, 400, 4000}) {
    options.steps = steps;
    const RefinedSchedule refined = Refined(norms, options);
    for (int64_t t = steps / 10; t < steps - steps / 10; ++t) {
      const double progress = (static_cast<double>(t) + 0.5) / static_cast<double>(steps);
      ASSERT_NEAR(refined.norms[t], std::exp(-0.002 * (400 * progress - 0.5)), 1e-12);
    }
  }
}

TEST(RefineTest, GuardsFallBackToLinearAndSayWhy) {
  // Weights that grow as t: the peak of t (1 - t^2) is at 58% of the run.
  Doubles late;
  for (int t = 0; t < 100; ++t) late.push_back(1 / std::sqrt(t + 10.0));
  const RefinedSchedule peak = Refined(late, {.norm = GradientNorm::kL2});
  EXPECT_THAT(peak.fallback, HasSubstr("later than half"));
  EXPECT_EQ(peak.factors[50], 0.5);
  EXPECT_GT(peak.headroom, 0);

  RefineOptions unfiltered;
  unfiltered.filter_share = 0;
  unfiltered.norm = GradientNorm::kL2;
  // Weights of nearly nothing for half the steps, and of 16 for three.
  Doubles few(100, 1e6);
  std::fill(few.begin(), few.begin() + 51, 4.0);
  for (const int t : {10, 20, 30}) few[t] = 1;
  EXPECT_THAT(Refined(few, unfiltered).fallback, HasSubstr("are worth 11% of the steps"));

  Doubles one(200, 50.0);
  one[100] = 1;
  // The floor alone holds one step at 16 times the weight of others: 7.4% of 200.
  EXPECT_THAT(Refined(one, unfiltered).fallback, HasSubstr("one step has 7.4%"));
  EXPECT_EQ(Refined(one, {.norm = GradientNorm::kL2}).fallback, "");
}

TEST(RefineTest, BlendsWithLinear) {
  const Doubles norms = Falling(200);
  const RefinedSchedule pure = Refined(norms);
  ASSERT_EQ(pure.fallback, "");
  RefineOptions options;
  options.blend = 0.5;
  const RefinedSchedule half = Refined(norms, options);
  ExpectValid(half, 200);
  double largest = 0;
  Doubles expected;
  for (int t = 0; t < 200; ++t) {
    expected.push_back(std::sqrt(pure.factors[t] * (200 - t) / 200));
    largest = std::max(largest, expected.back());
  }
  for (int t = 0; t < 200; ++t) EXPECT_NEAR(half.factors[t], expected[t] / largest, 1e-12);
  options.blend = 0;
  EXPECT_EQ(Refined(norms, options).factors[50], 0.75);
}

TEST(RefineTest, WeightsComeBackFromTheShape) {
  const Doubles weights = {0.5, 2, 3, 1, 4, 0.25};
  const Doubles back = WeightsOf(OptimalFactors(weights));
  for (size_t t = 0; t < weights.size(); ++t) {
    EXPECT_NEAR(back[t] / back[0], weights[t] / weights[0], 1e-12);
  }
}

TEST(RefineTest, HeadroomIsNeverNegative) {
  std::mt19937 random(9);
  for (int round = 0; round < 200; ++round) {
    Doubles weights;
    for (int t = 0; t < 50; ++t)
      weights.push_back(std::exp(1e-9 * static_cast<double>(random() % 100)));
    EXPECT_GE(Headroom(weights), 0);
  }
}

TEST(PortableShapeTest, FindsTheFormulaThatMadeTheFactors) {
  ScheduleConfig config{"polynomial", 1, 70, 0, 1000};
  config.profile.power = 1.5;
  const PortableShape shape = PortableShapeOf(Schedule::Create(config)->Rates());
  EXPECT_EQ(shape.warmup_steps, 70);
  EXPECT_NEAR(shape.power, 1.5, 0.01);
  EXPECT_EQ(shape.text, "7% warm-up, then (1-t)^1.5, R2 1.000");
  EXPECT_EQ(PortableShapeOf({1}).r2, 1);
  EXPECT_EQ(PortableShapeOf({1, 0.5}).warmup_steps, 0);
  EXPECT_GT(PortableShapeOf(Refined(Falling(300)).factors).r2, 0.9);
}

}  // namespace
}  // namespace longspan
