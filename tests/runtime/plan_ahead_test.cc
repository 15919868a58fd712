#include "runtime/train/plan_ahead.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "corpus.h"
#include "gtest/gtest.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

class PlanAheadTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = directory_.path() + "/corpus.h5";
    WriteCorpus(path, {299, 3, 150, 1, 77, 41, 260, 12, 180, 95, 30, 220, 64, 8});
    DatasetOptions options;
    options.sources = {{path, 1.0}};
    auto dataset = Dataset::Open(options);
    ASSERT_TRUE(dataset.ok()) << dataset.status();
    dataset_ = *std::move(dataset);
    planner_ = *CreatePlanner("skyline");
    request_.ranks = 3;
    request_.micro_batch_tokens = 120;
    request_.cost.linear_seconds_per_token = 1e-5;
  }

  // The plan of `step`, made here and now.
  StepPlan PlanOf(int64_t step, const CostModel& cost) {
    DataCursor cursor = dataset_->Begin();
    PlanRequest request = request_;
    request.cost = cost;
    for (int64_t i = 0; i <= step; ++i) {
      request.lengths.clear();
      for (const SequenceRef& sequence : dataset_->NextBatch(cursor, 500)) {
        request.lengths.push_back(sequence.length);
      }
    }
    return *planner_->Plan(request);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Dataset> dataset_;
  std::unique_ptr<Planner> planner_;
  PlanRequest request_;
};

TEST_F(PlanAheadTest, GivesThePlansOfAllStepsInOrder) {
  PlanAhead plans(*dataset_, *planner_, request_, 500, dataset_->Begin(), 0, 12);
  DataCursor cursor = dataset_->Begin();
  for (int64_t step = 0; step < 12; ++step) {
    const absl::StatusOr<PlannedStep> planned = plans.Next();
    ASSERT_TRUE(planned.ok()) << planned.status();
    EXPECT_EQ(planned->sequences, dataset_->NextBatch(cursor, 500));
    EXPECT_EQ(planned->after, cursor);
    EXPECT_EQ(planned->plan_hash, HashOf(PlanOf(step, request_.cost)));
    EXPECT_EQ(planned->plan_hash, HashOf(planned->plan));
  }
}

TEST_F(PlanAheadTest, CostChangesFromTheAnnouncedStepOn) {
  CostModel other = request_.cost;
  other.attention_seconds_per_pair = 1e-6;
  other.ring_step_seconds = 1e-2;
  other = CostOf(UnitsOf(other), {});  // as ranks tell each other
  constexpr int64_t kFrom = 3 + PlanAhead::kDepth;
  PlanAhead plans(*dataset_, *planner_, request_, 500, dataset_->Begin(), 0, 20);
  for (int64_t step = 0; step < 20; ++step) {
    // However far the thread is ahead, the change is not too late.
    if (step == 2) plans.ChangeCost({1, kFrom, UnitsOf(other)});
    const absl::StatusOr<PlannedStep> planned = plans.Next();
    ASSERT_TRUE(planned.ok()) << planned.status();
    const CostModel& cost = step < kFrom ? request_.cost : other;
    EXPECT_EQ(planned->plan_hash, HashOf(PlanOf(step, cost))) << "step " << step;
    EXPECT_EQ(planned->cost_version, step < kFrom ? 0 : 1);
    EXPECT_EQ(planned->plan.certificate.makespan_seconds,
              PlanOf(step, cost).certificate.makespan_seconds);
  }
}

TEST_F(PlanAheadTest, GoesOnWithTheCostsOfARunBefore) {
  CostModel second = request_.cost, third = request_.cost;
  second.attention_seconds_per_pair = 1e-6;
  third.micro_batch_seconds = 1e-3;
  const std::vector<CostVersion> costs = {
      {1, 2, {1, 1, 1, 1, 1}}, {2, 4, UnitsOf(second)}, {3, 8, UnitsOf(third)}};
  DataCursor cursor = dataset_->Begin();
  for (int step = 0; step < 6; ++step) dataset_->NextBatch(cursor, 500);
  PlanAhead plans(*dataset_, *planner_, request_, 500, cursor, 6, 12, costs);
  for (int64_t step = 6; step < 12; ++step) {
    const absl::StatusOr<PlannedStep> planned = plans.Next();
    ASSERT_TRUE(planned.ok()) << planned.status();
    EXPECT_EQ(planned->cost_version, step < 8 ? 2 : 3);
    const CostVersion& cost = costs[step < 8 ? 1 : 2];
    EXPECT_EQ(planned->plan.certificate.makespan_seconds,
              PlanOf(step, CostOf(cost.units, {})).certificate.makespan_seconds);
  }
}

TEST_F(PlanAheadTest, SaysWhyThereIsNoPlan) {
  request_.ranks = 2;  // too few for 299 tokens
  PlanAhead plans(*dataset_, *planner_, request_, 500, dataset_->Begin(), 0, 100);
  absl::Status status;
  for (int step = 0; step < 100 && status.ok(); ++step) status = plans.Next().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("micro_batch_tokens"), std::string::npos);
}

TEST_F(PlanAheadTest, EndsWithPlansNobodyAskedFor) {
  for (int round = 0; round < 20; ++round) {
    PlanAhead plans(*dataset_, *planner_, request_, 500, dataset_->Begin(), 0, 1000);
    if (round % 2 == 0) {
      EXPECT_TRUE(plans.Next().ok());
    }
  }
}

}  // namespace
}  // namespace longspan
