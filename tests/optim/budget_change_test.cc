#include "optim/budget_change.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "optim/last_iterate_bound.h"
#include "optim/refine.h"

namespace longspan {
namespace {

using Doubles = std::vector<double>;

Schedule Plan(const std::string& kind, int64_t steps) {
  return *Schedule::Create({kind, 0.01, 0, 0, steps});
}

Doubles Replanned(const Schedule& old, int64_t done, int64_t steps, BudgetChange change) {
  absl::StatusOr<Schedule> plan = Replan(old, done, steps, change);
  EXPECT_TRUE(plan.ok()) << plan.status();
  const Doubles rates = plan->Rates();
  EXPECT_EQ(static_cast<int64_t>(rates.size()), steps);
  for (int64_t t = 0; t < done; ++t) EXPECT_EQ(rates[t], old.Rate(t)) << "used is used";
  // What a checkpoint will say of it.
  EXPECT_EQ(Schedule::FromJson(plan->ToJson())->Rates(), rates);
  return rates;
}

TEST(BudgetChangeTest, HoldAndFinishGoOnFromTheLastRate) {
  const Schedule old = Plan("linear", 100);
  const Doubles held = Replanned(old, 60, 90, BudgetChange::kHold);
  for (int64_t t = 60; t < 90; ++t) EXPECT_EQ(held[t], old.Rate(59));
  const Doubles finished = Replanned(old, 60, 80, BudgetChange::kFinish);
  EXPECT_EQ(finished[60], old.Rate(59));
  EXPECT_DOUBLE_EQ(finished[70], old.Rate(59) / 2);
  EXPECT_DOUBLE_EQ(finished[79], old.Rate(59) / 20);
}

TEST(BudgetChangeTest, RetimingTheOldBudgetFindsTheOldPlanAgain) {
  // Linear is optimal for flat norms, so what is left of it, at the scale that it had, is nearly
  // the best rest.
  const Schedule old = Plan("linear", 400);
  for (const int64_t done : {0, 1, 100, 300}) {
    const Doubles rates = Replanned(old, done, 400, BudgetChange::kRetime);
    for (int64_t t = done; t < 400; ++t)
      EXPECT_NEAR(rates[t], old.Rate(t), 0.1 * old.Rate(t)) << done << " " << t;
  }
}

TEST(BudgetChangeTest, RetimingIsBetterThanTheOtherChoicesAndThanNearbyScales) {
  const Doubles flat(200, 1.0);
  for (const char* kind : {"linear", "cosine", "constant"}) {
    const Schedule old = Plan(kind, 100);
    const LastIterateBound before = BoundOf(old.Rates(), Doubles(100, 1.0));
    const auto error = [&](const Doubles& rates) {
      const LastIterateBound bound = BoundOf(rates, flat);
      return before.b / before.a * bound.a + bound.b;
    };
    for (const int64_t done : {50, 100}) {
      const Doubles retimed = Replanned(old, done, 200, BudgetChange::kRetime);
      const double least = error(retimed);
      EXPECT_LE(least, error(Replanned(old, done, 200, BudgetChange::kHold)) * (1 + 1e-9)) << kind;
      EXPECT_LE(least, error(Replanned(old, done, 200, BudgetChange::kFinish)) * (1 + 1e-9))
          << kind;
      for (const double scale : {0.9, 1.1}) {
        Doubles other = retimed;
        for (size_t t = done; t < 200; ++t) other[t] *= scale;
        EXPECT_LT(least, error(other));
      }
      // It goes up again after a finished run; above the old peak only where that was a constant
      // rate's, which is low.
      const double peak = *std::max_element(retimed.begin() + done, retimed.end());
      EXPECT_GT(peak, 0.1 * 0.01) << kind;
      EXPECT_LT(peak, (old.config().kind == "constant" ? 2 : 1.2) * 0.01) << kind;
    }
  }
}

TEST(BudgetChangeTest, ARefinedPlanKeepsItsNorms) {
  Doubles norms;
  for (int t = 0; t < 100; ++t) norms.push_back(1 + 4 * std::exp(-t / 15.0));
  ScheduleConfig config{"refined", 0.01, 0, 0, 100};
  config.values = Refine(norms, {})->factors;
  const Doubles rates = Replanned(*Schedule::Create(config), 10, 300, BudgetChange::kRetime);
  const auto peak = std::max_element(rates.begin() + 10, rates.end()) - rates.begin();
  EXPECT_GT(peak, 20) << "norms still fall there: the rest begins with a rise";
  EXPECT_LT(peak, 150);
}

TEST(BudgetChangeTest, WhatCannotBeIsRefused) {
  const Schedule old = Plan("linear", 100);
  EXPECT_THAT(std::string(Replan(old, 60, 50, BudgetChange::kHold).status().message()),
              ::testing::HasSubstr("made 60 updates already"));
  EXPECT_FALSE(Replan(old, 0, 50, BudgetChange::kFinish).ok());
  EXPECT_EQ(Replan(old, 60, 60, BudgetChange::kRetime)->steps(), 60);
}

}  // namespace
}  // namespace longspan
