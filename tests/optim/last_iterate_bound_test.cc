#include "optim/last_iterate_bound.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>

namespace longspan {
namespace {

using Doubles = std::vector<double>;

Doubles Rates(const std::string& kind, int64_t steps, double warmup = 0) {
  return Schedule::Create({kind, 1, warmup, 0, steps})->Rates();
}

TEST(LastIterateBoundTest, LinearWithFlatNormsHasThePublishedValues) {
  const std::pair<int64_t, double> values[] = {{100, 1.0180}, {1000, 1.0030}, {10000, 1.0004}};
  for (const auto& [steps, value] : values) {
    const LastIterateBound bound = BoundOf(Rates("linear", steps), Doubles(steps, 1.0));
    EXPECT_NEAR(bound.value() * std::sqrt(static_cast<double>(steps)) / 2, value, 5e-5);
  }
}

TEST(LastIterateBoundTest, FollowsItsFormula) {
  const Doubles s = {0.3, 1, 0.7, 0.2}, g2 = {2, 0.5, 1, 3};
  double tail[5] = {}, q[5] = {};
  for (int t = 3; t >= 0; --t) {
    tail[t] = tail[t + 1] + s[t];
    q[t] = q[t + 1] + s[t] * s[t] * g2[t];
  }
  double b = q[0] / (2 * tail[0]);
  for (int t = 0; t < 3; ++t) b += 0.5 * s[t] * q[t] / (tail[t] * tail[t + 1]);
  const LastIterateBound bound = BoundOf(s, g2);
  EXPECT_DOUBLE_EQ(bound.a, 1 / (2 * tail[0]));
  EXPECT_DOUBLE_EQ(bound.b, b);
  EXPECT_DOUBLE_EQ(bound.best_peak(), std::sqrt(bound.a / b));
  // Zeros at the end change nothing.
  EXPECT_DOUBLE_EQ(BoundOf({0.3, 1, 0.7, 0.2, 0}, {2, 0.5, 1, 3, 7}).b, b);
}

TEST(LastIterateBoundTest, TheBestPeakMinimisesIt) {
  const Doubles shape = Rates("cosine", 50), g2(50, 2.0);
  const LastIterateBound unit = BoundOf(shape, g2);
  const auto at = [&](double peak) {
    Doubles rates = shape;
    for (double& rate : rates) rate *= peak;
    const LastIterateBound bound = BoundOf(rates, g2);
    return bound.a + bound.b;
  };
  EXPECT_NEAR(at(unit.best_peak()), unit.value(), 1e-12);
  EXPECT_GT(at(1.05 * unit.best_peak()), unit.value());
  EXPECT_GT(at(0.95 * unit.best_peak()), unit.value());
}

// Coordinate descent on log rates.
double NumericalOptimum(const Doubles& g2) {
  Doubles rates(g2.size(), 1.0);
  double best = BoundOf(rates, g2).value();
  for (double factor = 2; factor > 1.0005; factor = std::sqrt(factor)) {
    for (bool better = true; better;) {
      const double before = best;
      for (double& rate : rates) {
        for (const double change : {factor, 1 / factor}) {
          const double old = rate;
          rate *= change;
          const double value = BoundOf(rates, g2).value();
          if (value < best) {
            best = value;
          } else {
            rate = old;
          }
        }
      }
      better = best < before * (1 - 1e-8);
    }
  }
  return best;
}

TEST(LastIterateBoundTest, TheClosedFormIsNearTheNumericalOptimum) {
  std::mt19937 random(4);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (const int steps : {64, 128}) {
    for (int shape = 0; shape < 4; ++shape) {
      Doubles g2, weights;
      for (int t = 0; t < steps; ++t) {
        const double progress = (t + 0.5) / steps;
        const double norm = shape == 0   ? 1.0
                            : shape == 1 ? 1 + 3 * std::exp(-8 * progress)
                            : shape == 2 ? 1 + progress
                                         : std::exp(0.4 * uniform(random));
        g2.push_back(norm * norm);
        weights.push_back(1 / g2.back());
      }
      const double closed = BoundOf(OptimalFactors(weights), g2).value();
      const double optimum = NumericalOptimum(g2);
      EXPECT_LE(optimum, closed * (1 + 1e-9));
      EXPECT_LT(closed, 1.05 * optimum) << steps << " steps, shape " << shape;
    }
  }
}

TEST(ExplainTest, FlatNormsKeepLinear) {
  const absl::StatusOr<Explanation> explanation =
      Explain(Doubles(200, 0.3), Rates("linear", 200), 0, {});
  ASSERT_TRUE(explanation.ok()) << explanation.status();
  EXPECT_EQ(explanation->headroom, 0);
  EXPECT_THAT(explanation->advice, ::testing::StartsWith("Keep the schedule"));
  EXPECT_THAT(explanation->optimal_for, ::testing::StartsWith("flat norms"));
  for (const ShapeBound& shape : explanation->shapes) {
    if (shape.shape == "linear" || shape.shape == "used") {
      EXPECT_DOUBLE_EQ(shape.bound, 1);
      EXPECT_DOUBLE_EQ(shape.best_peak, 1);
    }
  }
  EXPECT_EQ(explanation->shapes.size(), Profiles().size() + 2);
}

TEST(ExplainTest, FallingNormsAskForARefinedShape) {
  // Norms that start four times as high as they end: a constant rate has much to gain.
  Doubles norms;
  for (int t = 0; t < 300; ++t) norms.push_back(1 + 3 * std::exp(-t / 20.0));
  const absl::StatusOr<Explanation> explanation =
      Explain(norms, Rates("constant", 300), 0, {.norm = GradientNorm::kL2});
  ASSERT_TRUE(explanation.ok()) << explanation.status();
  EXPECT_EQ(explanation->fallback, "");
  EXPECT_THAT(explanation->advice, ::testing::StartsWith("Try "));
  EXPECT_GT(explanation->headroom, 0.05);
  double refined = 0, linear = 0;
  for (const ShapeBound& shape : explanation->shapes) {
    if (shape.shape == "refined") refined = shape.bound;
    if (shape.shape == "linear") linear = shape.bound;
  }
  EXPECT_LT(refined, linear);
  EXPECT_LT(linear, 1);
  EXPECT_EQ(explanation->implied_norms.size(), 5u);
  EXPECT_FALSE(Explain(norms, Doubles(300, 0.0), 0, {}).ok());
  Doubles ends_at_zero = Rates("linear", 300);
  ends_at_zero.back() = 0;
  EXPECT_TRUE(Explain(norms, ends_at_zero, 0, {})->implied_norms.empty());
}

}  // namespace
}  // namespace longspan
