#include "parallel/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "parallel/length_mix.h"
#include "parallel/pipeline_planner.h"
#include "parallel/planner.h"

namespace longspan {
namespace {

using ::testing::HasSubstr;

constexpr double kTiny = 1e-9;
// ByteScale's case study, LLaMA-7B.
const CostModel kSevenBillion = {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3, {}};

std::vector<int64_t> Lengths(const std::string& mix, int64_t tokens) {
  return *DrawLengths({mix, tokens, 256 << 10, 7});
}

PlanOutline OutlineOf(const std::string& policy, const std::vector<int64_t>& lengths, int ranks,
                      const CostModel& cost = kSevenBillion) {
  return *(*CreatePlanner(policy))->Outline({lengths, ranks, 8192, cost});
}

// Whole sequences alone, by rank.
PlanOutline WholeSequences(const std::vector<std::vector<int64_t>>& by_rank) {
  PlanOutline outline;
  for (const auto& sequences : by_rank) {
    auto& list = outline.micro_batches.emplace_back();
    for (const int64_t sequence : sequences) list.push_back({-1, {sequence}});
  }
  return outline;
}

// Sequence 0 on ranks 0 and 1.
PlanOutline RingOfTwo() {
  PlanOutline outline;
  outline.rings = {{{0}, {0, 1}}};
  outline.micro_batches = {{{0, {}}}, {{0, {}}}};
  return outline;
}

double MakespanSeconds(const PlanOutline& outline, const std::vector<int64_t>& lengths,
                       const CostModel& cost) {
  const int ranks = static_cast<int>(outline.micro_batches.size());
  const IntegerCostModel integer = *IntegerCostModel::Create(cost, ranks);
  return IntegerCostModel::Seconds(TimelineOf(outline, lengths, integer).makespan);
}

TEST(SimulatorTest, AgreesWithTheTimelineWithoutJitter) {
  CostModel slow_links = kSevenBillion;
  slow_links.ring_seconds_per_token = 4e-4;
  CostModel split = slow_links;
  split.heads = {.kv_heads = 8, .queries_per_kv = 1, .most = 8};
  for (const CostModel& cost : {kSevenBillion, slow_links, split}) {
    for (const std::string mix : {"github", "byted", "code", "equal"}) {
      const std::vector<int64_t> lengths = Lengths(mix, 4 << 20);
      for (const std::string policy : {"skyline", "bytescale", "naive", "static"}) {
        const PlanOutline outline = OutlineOf(policy, lengths, 64, cost);
        const double expected = MakespanSeconds(outline, lengths, cost);
        const absl::StatusOr<StepSimulation> step = SimulateStep(outline, lengths, {cost});
        ASSERT_TRUE(step.ok()) << step.status();
        EXPECT_NEAR(step->step_seconds / expected, 1, 2e-3) << mix << " " << policy;
      }
    }
  }
}

TEST(SimulatorTest, EveryRanksTimesAddUpToTheStep) {
  const std::vector<int64_t> lengths = Lengths("github", 4 << 20);
  for (const std::string policy : {"skyline", "bytescale", "naive", "static"}) {
    const PlanOutline outline = OutlineOf(policy, lengths, 48);
    for (const int stages : {1, 2, 5}) {
      SimulationRequest request{kSevenBillion, stages};
      request.update = {28e9, 14e9, 50e9, 1e-3, 10};
      request.jitter = {0.1, 0.1, 3};
      const absl::StatusOr<StepSimulation> step = SimulateStep(outline, lengths, request);
      ASSERT_TRUE(step.ok()) << step.status();
      ASSERT_EQ(step->ranks.size(), 48);
      for (const RankTimes& times : step->ranks) {
        EXPECT_NEAR(times.total(), step->step_seconds, 1e-6 * step->step_seconds);
        for (const double part : {times.busy, times.group_wait, times.exposed_transfer,
                                  times.stage_wait, times.idle, times.update}) {
          EXPECT_GE(part, -kTiny) << policy << " " << stages;
        }
      }
      EXPECT_GT(step->step_seconds, step->micro_batches_seconds);
      EXPECT_NEAR(step->tokens_per_second * step->step_seconds, 4 << 20, 1);
    }
  }
}

// Sequence 0: 4 tokens, 2 and 5 pairs on each rank; a transfer of 2 s that one block of 2.5 ms
// hides next to nothing of.
TEST(SimulatorTest, RingOfTwoWithASlowTransfer) {
  const CostModel cost = {1e-3, 1e-2, 1, 0.5, 0.25, {}};
  const absl::StatusOr<StepSimulation> step = SimulateStep(RingOfTwo(), {4}, {cost});
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_NEAR(step->step_seconds, 0.25 + 0.02 + 0.5 + 2 + 0.0025, kTiny);
  for (const RankTimes& times : step->ranks) {
    EXPECT_NEAR(times.busy, 0.25 + 0.02 + 0.005, kTiny);
    EXPECT_NEAR(times.exposed_transfer, 0.5 + 2 - 0.0025, kTiny);
    EXPECT_NEAR(times.group_wait, 0, kTiny);
  }
}

// Rank 0 holds a whole sequence of 3 tokens beside the ring: it is 30 ms late, so that rank 1
// waits, and its attention of 6 ms fills a part of the transfer.
TEST(SimulatorTest, WholeSequencesFillTheTransfer) {
  const CostModel cost = {1e-3, 1e-2, 1, 0.5, 0.25, {}};
  PlanOutline outline = RingOfTwo();
  outline.micro_batches[0][0].sequences = {1};
  const absl::StatusOr<StepSimulation> step = SimulateStep(outline, {4, 3}, {cost});
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_NEAR(step->step_seconds, 0.25 + 0.05 + 0.5 + 2 + 0.0025, kTiny);
  EXPECT_NEAR(step->ranks[0].exposed_transfer, 0.5 + 2 - 0.0025 - 0.006, kTiny);
  EXPECT_NEAR(step->ranks[0].group_wait, 0, kTiny);
  EXPECT_NEAR(step->ranks[1].exposed_transfer, 0.5 + 2, kTiny);
  EXPECT_NEAR(step->ranks[1].group_wait, 0.03 - 0.0025, kTiny);
}

// A slow member holds its neighbours step by step.
TEST(SimulatorTest, ASlowNeighbourIsWaitedFor) {
  CostModel cost = {1e-3, 0, 0, 0, 0, {1, 0.5}};
  const absl::StatusOr<StepSimulation> step = SimulateStep(RingOfTwo(), {4}, {cost});
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_NEAR(step->ranks[1].busy, 0.010, kTiny);
  EXPECT_NEAR(step->ranks[0].busy, 0.005, kTiny);
  EXPECT_NEAR(step->step_seconds, 0.010, kTiny);
}

// Forward passes of 1, 2 and 1 s on each stage, backward passes of twice that:
//   stage 0  F0 F1 F1 .  B0 B0 F2 .  .  .  B1 B1 B1 B1 B2 B2
//   stage 1  .  F0 B0 B0 F1 F1 B1 B1 B1 B1 F2 B2 B2 .  .  .
TEST(SimulatorTest, OneForwardOneBackward) {
  const CostModel cost = {0, 1, 0, 0, 0, {}};
  const absl::StatusOr<StepSimulation> step =
      SimulateStep(WholeSequences({{0, 1, 2}}), {6, 12, 6}, {cost, 2});
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_NEAR(step->step_seconds, 16, kTiny);
  EXPECT_NEAR(step->ranks[0].busy, 12, kTiny);
  EXPECT_NEAR(step->ranks[0].stage_wait, (4 + 1) / 2.0, kTiny);
  EXPECT_NEAR(step->ranks[0].idle, 3 / 2.0, kTiny);
}

// Gradients of 4 s in 16 buckets: beside the backward pass of 4 s all but the last bucket is
// hidden; after a ring nothing is.
TEST(SimulatorTest, ReductionOverlapsABackwardPassWithoutARing) {
  SimulationRequest request{{0, 1, 0, 0, 0, {}}};
  request.update = {8, 4, 1, 0.125, 1};
  const double after = 0.125 + 0.5 + 2 + 0.125;
  const absl::StatusOr<StepSimulation> whole =
      SimulateStep(WholeSequences({{0}, {1}}), {6, 6}, request);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_NEAR(whole->step_seconds, 6 + 0.25 + after, kTiny);
  const absl::StatusOr<StepSimulation> ring = SimulateStep(RingOfTwo(), {12}, request);
  ASSERT_TRUE(ring.ok()) << ring.status();
  EXPECT_NEAR(ring->step_seconds, 6 + 4 + after, kTiny);
  EXPECT_NEAR(ring->ranks[0].update, 4 + after, kTiny);
}

TEST(SimulatorTest, JitterIsSeededAndCostsTime) {
  const std::vector<int64_t> lengths = Lengths("github", 4 << 20);
  const PlanOutline outline = OutlineOf("skyline", lengths, 64);
  SimulationRequest request{kSevenBillion};
  const double steady = SimulateStep(outline, lengths, request)->step_seconds;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    request.jitter = {0.05, 0.05, seed};
    const double uneven = SimulateStep(outline, lengths, request)->step_seconds;
    EXPECT_GT(uneven, steady);
    EXPECT_EQ(uneven, SimulateStep(outline, lengths, request)->step_seconds);
    request.jitter.seed = seed + 100;
    EXPECT_NE(uneven, SimulateStep(outline, lengths, request)->step_seconds);
  }
}

TEST(SimulatorTest, StaticMeshesAreSlowerOnLongTails) {
  const std::vector<int64_t> lengths = Lengths("github", 4 << 20);
  const auto seconds = [&](const std::string& policy) {
    return SimulateStep(OutlineOf(policy, lengths, 64), lengths, {kSevenBillion})->step_seconds;
  };
  const double skyline = seconds("skyline");
  EXPECT_GT(seconds("static"), 1.5 * skyline);
  EXPECT_GE(seconds("bytescale"), skyline);
}

TEST(SimulatorTest, GradientsOfHalfTheBytesTravelInHalfTheTime) {
  const UpdateModel f32 = AnalyticUpdateModel(1e9, 1e10), bf16 = AnalyticUpdateModel(1e9, 1e10, 2);
  EXPECT_EQ(f32.gradient_bytes, 4e9);
  EXPECT_EQ(bf16.gradient_bytes, 2e9);
  EXPECT_EQ(bf16.parameter_bytes, f32.parameter_bytes);
  EXPECT_EQ(bf16.optimizer_seconds, f32.optimizer_seconds);
}

TEST(SimulatorTest, SaysWhatIsOutOfRange) {
  const PlanOutline outline = WholeSequences({{0}});
  const auto message = [&](const SimulationRequest& request) {
    return std::string(SimulateStep(outline, {4}, request).status().message());
  };
  SimulationRequest request{kSevenBillion};
  request.stages = 0;
  EXPECT_THAT(message(request), HasSubstr("0 pipeline stages"));
  request.stages = 1;
  request.jitter.rank_deviation = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(message(request), HasSubstr("rank deviation"));
  request.jitter.rank_deviation = 0;
  request.update.gradient_bytes = 1;
  EXPECT_THAT(message(request), HasSubstr("no bytes per second"));
  request.update.gradient_bytes = 0;
  request.cost.linear_seconds_per_token = -1;
  EXPECT_THAT(message(request), HasSubstr("linear_seconds_per_token"));
}

TEST(PipelinePlannerTest, PlansAreValid) {
  for (const std::string mix : {"github", "byted", "code", "equal"}) {
    for (const int stages : {1, 4}) {
      for (const int ranks : {32, 57}) {
        const PlanRequest request{Lengths(mix, 4 << 20), ranks, 8192, kSevenBillion};
        const absl::StatusOr<StepPlan> plan = PipelinePlanner(stages).Plan(request);
        ASSERT_TRUE(plan.ok()) << plan.status();
        EXPECT_TRUE(Validate(*plan).ok()) << Validate(*plan);
      }
    }
  }
  EXPECT_TRUE(PipelinePlanner(4).Plan({{}, 3, 8192, kSevenBillion}).ok());
  EXPECT_TRUE(PipelinePlanner(4).Plan({{9000, 5}, 2, 8192, {}}).ok());
}

// In a pipeline neighbours in time are neighbours in length: what a stage waits for is less than
// where every pipeline goes from the longest to the shortest, and so is the step.
TEST(PipelinePlannerTest, StagesWaitLessThanUnderDataBalance) {
  const int stages = 8;
  CostModel stage = kSevenBillion;
  stage.attention_seconds_per_pair /= stages;
  stage.linear_seconds_per_token /= stages;
  stage.ring_seconds_per_token /= stages;
  stage.ring_step_seconds /= stages;
  stage.micro_batch_seconds /= stages;
  double by_level = 0, by_time = 0;
  for (const std::string mix : {"github", "byted"}) {
    const std::vector<int64_t> lengths = Lengths(mix, 16 << 20);
    const PlanRequest request{lengths, 64, 8192, stage};
    const SimulationRequest simulation{kSevenBillion, stages};
    by_level +=
        SimulateStep(*PipelinePlanner(stages).Outline(request), lengths, simulation)->step_seconds;
    by_time += SimulateStep(*(*CreatePlanner("bytescale"))->Outline(request), lengths, simulation)
                   ->step_seconds;
  }
  EXPECT_LT(by_level, by_time);
}

}  // namespace
}  // namespace longspan
