// CostRefit: a cost model that the times of a run's own micro-batches follow is found again, in
// spite of waiting, noise and outliers, and is the same on every rank.
#include "runtime/train/cost_refit.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/certificate.h"
#include "parallel/plan_timeline.h"
#include "parallel/planner.h"
#include "parallel/transport/rank_threads.h"

namespace longspan {
namespace {

constexpr int kRanks = 4;
constexpr CostModel kTrue{2e-9, 3e-6, 8e-7, 4e-4, 1e-3, {}};

StepPlan PlanOf(std::mt19937& random, int64_t longest) {
  PlanRequest request;
  request.ranks = kRanks;
  request.micro_batch_tokens = 2000;
  request.cost = kTrue;
  std::uniform_real_distribution<double> exponent(1, std::log2(static_cast<double>(longest)));
  for (int i = 0; i < 60; ++i)
    request.lengths.push_back(static_cast<int64_t>(std::exp2(exponent(random))));
  return *(*CreatePlanner("naive"))->Plan(request);
}

// What rank `rank` measures when the plan runs as `cost` says: waiting for others included.
std::vector<double> TimesOf(const StepPlan& plan, const CostModel& cost, int rank,
                            std::mt19937& random) {
  const PlanTimeline timeline = TimelineOf(plan, *IntegerCostModel::Create(cost, kRanks));
  std::uniform_real_distribution<double> noise(0.98, 1.02), lot(0, 1);
  std::vector<double> times;
  PlanningTime before = 0;
  for (const TimedMicroBatch& micro_batch : timeline.micro_batches[rank]) {
    double seconds = IntegerCostModel::Seconds(micro_batch.end - before) * noise(random);
    if (lot(random) < 0.04) seconds *= 5;
    times.push_back(seconds);
    before = micro_batch.end;
  }
  return times;
}

// The refit of each rank after `steps` steps that ran as `truth` says.
std::vector<CostRefitResult> Refit(const CostModel& present, const CostModel& truth, int steps,
                                   int64_t longest) {
  std::vector<CostRefitResult> results(kRanks);
  const absl::Status status = RunRanks(
      kRanks,
      [&](Transport& transport, Device&) {
        CostRefit refit(present, /*version=*/6);
        std::mt19937 plans(1), noise(static_cast<unsigned>(transport.rank()));
        for (int step = 0; step < steps; ++step) {
          const StepPlan plan = PlanOf(plans, longest);
          refit.Record(plan, transport.rank(), TimesOf(plan, truth, transport.rank(), noise));
        }
        absl::StatusOr<CostRefitResult> result = refit.Fit(/*from_step=*/40, transport);
        if (result.ok()) results[transport.rank()] = *result;
        return result.status();
      },
      {});
  EXPECT_TRUE(status.ok()) << status.ToString();
  return results;
}

TEST(CostRefit, FindsTheModelThatTheTimesFollow) {
  const CostModel wrong{1e-9, 1e-6, 1e-8, 1e-5, 1e-2, {}};
  const std::vector<CostRefitResult> results = Refit(wrong, kTrue, 10, 6000);
  ASSERT_TRUE(results[0].adopted.has_value());
  EXPECT_EQ(results[0].adopted->version, 7);
  EXPECT_EQ(results[0].adopted->from_step, 40);
  EXPECT_LT(results[0].median_error, 0.03);
  EXPECT_GT(results[0].present_median_error, 0.3);
  for (const CostRefitResult& result : results) {
    EXPECT_EQ(result.adopted, results[0].adopted);
    EXPECT_EQ(result.samples, results[0].samples);
  }
  // It foretells makespans, whichever coefficients that takes.
  std::mt19937 random(99);
  const CostModel found = CostOf(results[0].adopted->units, {});
  for (int i = 0; i < 5; ++i) {
    const StepPlan plan = PlanOf(random, 6000);
    EXPECT_NEAR(Certify(plan, found)->makespan_seconds / Certify(plan, kTrue)->makespan_seconds, 1,
                0.03);
  }
}

TEST(CostRefit, KeepsAModelThatIsRight) {
  const std::vector<CostRefitResult> results = Refit(kTrue, kTrue, 10, 6000);
  EXPECT_FALSE(results[0].adopted.has_value());
  EXPECT_GT(results[0].samples, 50);
  EXPECT_LT(results[0].present_median_error, 0.03);
}

TEST(CostRefit, KeepsWhatTheTimesDoNotTell) {
  CostModel present = kTrue;
  present.linear_seconds_per_token *= 3;
  const std::vector<CostRefitResult> results = Refit(present, kTrue, 10, /*longest=*/2000);
  ASSERT_TRUE(results[0].adopted.has_value());
  const CostUnits before = UnitsOf(present);
  EXPECT_EQ(results[0].adopted->units[2], before[2]) << "no rings, so nothing about them";
  EXPECT_EQ(results[0].adopted->units[3], before[3]);
}

TEST(CostRefit, WithoutTimesNothingIsAdopted) {
  // Warm-up steps do not count.
  const std::vector<CostRefitResult> results = Refit(kTrue, kTrue, CostRefit::kWarmUpSteps, 6000);
  EXPECT_FALSE(results[0].adopted.has_value());
  EXPECT_EQ(results[0].samples, 0);
}

TEST(CostRefit, FitsComeLessAndLessOften) {
  std::mt19937 random(5);
  const StepPlan plan = PlanOf(random, 6000);
  CostRefit refit(kTrue, 0);
  std::vector<int> due;
  for (int step = 1; step <= 800; ++step) {
    refit.Record(plan, 0, std::vector<double>(plan.micro_batches[0].size(), 1.0));
    if (refit.Due()) due.push_back(step);
  }
  EXPECT_EQ(due, (std::vector<int>{8, 16, 32, 64, 128, 256, 512, 768}));
}

TEST(CostRefit, UnitsSurviveTheWayThroughSeconds) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 1000; ++i) {
    CostUnits units{};
    for (int64_t& unit : units) unit = static_cast<int64_t>(random() >> (14 + random() % 40));
    EXPECT_EQ(UnitsOf(CostOf(units, {})), units);
  }
}

}  // namespace
}  // namespace longspan
