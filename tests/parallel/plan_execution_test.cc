// Plans of every policy, executed: random batches, all micro-batches of a step queued at once as in
// training, on a network that delays messages and makes senders wait for receivers. No plan may
// hang, results are those of each sequence alone, and every rank sends the bytes that the plan
// predicts.
//
// LONGSPAN_PLANS=N executes N plans of each kind of network, LONGSPAN_PLAN_SEED=S that one alone.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attention_sequences.h"
#include "parallel/plan.h"
#include "parallel/planner.h"
#include "parallel/ring_traffic.h"
#include "parallel/transport/rank_threads.h"
#include "test_plans.h"

namespace longspan {
namespace {

constexpr AttentionShape kShape{.heads = 2, .kv_heads = 1, .head_dim = 4};
// Heads that may be split by 2 and by 4.
constexpr AttentionShape kManyHeads{.heads = 8, .kv_heads = 4, .head_dim = 4};

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

enum class Network { kRendezvous, kBuffered, kDelayed };

RankThreadOptions OptionsOf(Network network, uint64_t seed) {
  RankThreadOptions options;
  options.timeout = absl::Seconds(30);
  options.network.seed = seed;
  // A send that waits for its receive turns hidden mistakes of order into hangs.
  options.network.eager_bytes = network == Network::kRendezvous ? 0 : 256;
  if (network == Network::kDelayed) options.network.max_delay = absl::Milliseconds(1);
  return options;
}

StepPlan RandomPlan(Random& random, const AttentionShape& shape) {
  const std::vector<std::string> policies = {"skyline", "bytescale", "naive", "static"};
  PlanRequest request;
  request.ranks = static_cast<int>(random.Between(2, 8));
  request.micro_batch_tokens = 2 * random.Between(4, 40);
  // Costs of many proportions: wide groups and narrow ones, rings that hide and rings that do not.
  request.cost = {.attention_seconds_per_pair = 1e-9 * static_cast<double>(random.Between(1, 100)),
                  .linear_seconds_per_token = 1e-8 * static_cast<double>(random.Between(1, 100)),
                  .ring_seconds_per_token = 1e-9 * static_cast<double>(random.Between(0, 100)),
                  .ring_step_seconds = 1e-7 * static_cast<double>(random.Between(0, 20)),
                  .micro_batch_seconds = 1e-7 * static_cast<double>(random.Between(0, 20))};
  request.cost.heads = {.kv_heads = shape.kv_heads,
                        .queries_per_kv = shape.heads / shape.kv_heads,
                        .most = static_cast<int>(random.Between(2, 4)),
                        .widest = random.Between(0, 3) > 0};
  // Half of the time nodes of any size, also of one that leaves no neighbours or cuts intervals
  // anywhere.
  if (random.Between(0, 1) == 0) {
    request.ranks_per_node = static_cast<int>(random.Between(1, request.ranks));
  }
  const int64_t sequences = random.Between(1, 12);
  for (int64_t i = 0; i < sequences; ++i) {
    request.lengths.push_back(random.LongTailed(request.ranks * request.micro_batch_tokens));
  }
  if (shape.kv_heads > 1) {
    // Fills all ranks, so that its heads may be split wherever their number lets them.
    const int64_t most = request.ranks * request.micro_batch_tokens;
    request.lengths[0] = random.Between(most - request.micro_batch_tokens + 1, most);
  }
  const std::string policy = policies[random.Between(0, 3)];
  const absl::StatusOr<StepPlan> plan = (*CreatePlanner(policy))->Plan(request);
  EXPECT_TRUE(plan.ok()) << policy << ": " << plan.status();
  return plan.ok() ? *plan : StepPlan{};
}

std::vector<Member> MembersOf(const StepPlan& plan, int rank, const AttentionOptions& options) {
  std::vector<Member> members;
  for (const MicroBatch& micro_batch : plan.micro_batches[rank]) {
    Member member{RingOf(plan, rank, micro_batch), {}, {}, options};
    for (const SequenceSlice& slice : InRowOrder(micro_batch)) {
      member.sequences.push_back(slice.sequence);
      if (slice.group < 0) member.whole.push_back(plan.lengths[slice.sequence]);
    }
    members.push_back(std::move(member));
  }
  return members;
}

// What a plan had.
struct Executed {
  bool rings = false, split_heads = false;
};

Executed Execute(Network network, uint64_t seed) {
  Random random(seed);
  AttentionShape shape = random.Between(0, 2) == 0 ? kShape : kManyHeads;
  const StepPlan plan = RandomPlan(random, shape);
  if (plan.micro_batches.empty()) return {};
  EXPECT_TRUE(Validate(plan).ok()) << Validate(plan);
  AttentionOptions options;
  // The plan need not know of it: with a window heads stay whole wherever it matters.
  if (random.Between(0, 2) == 0) options.window = shape.window = random.LongTailed(100);
  if (random.Between(0, 3) == 0) options.wire = DType::kBF16;
  std::vector<Sequence> sequences;
  std::vector<Result> results;
  for (size_t i = 0; i < plan.lengths.size(); ++i) {
    sequences.push_back(RandomSequence(plan.lengths[i], shape, seed * 100 + i));
    results.push_back(UnsetResult(sequences.back(), shape));
  }
  std::vector<int64_t> sent(plan.ranks);
  const absl::Status status = RunRanks(
      plan.ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        RingWorkspace workspace;
        std::vector<MemberRun> runs;
        for (Member& member : MembersOf(plan, transport.rank(), options)) {
          runs.emplace_back(std::move(member), shape, /*gap=*/0, sequences);
        }
        Stream stream = device.CreateStream("step");
        for (MemberRun& run : runs) {
          absl::Status queued = run.QueueForward(transport, stream, &workspace);
          if (queued.ok()) queued = run.QueueBackward(transport, stream, &workspace);
          if (!queued.ok()) return queued;
        }
        absl::Status end = stream.Synchronize();
        for (const MemberRun& run : runs) {
          if (end.ok()) end = run.Collect(results);
        }
        sent[transport.rank()] = transport.exchanged_bytes();
        return end;
      },
      OptionsOf(network, seed));
  EXPECT_TRUE(status.ok()) << status;
  if (!status.ok()) return {};
  EXPECT_EQ(sent, RingBytesByRank(plan, options, shape.counts()));
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Result expected = BruteForce(sequences[i], shape);
    ExpectNear(results[i], expected, expected, shape, options.wire, absl::StrCat("sequence ", i));
  }
  Executed executed{.rings = !plan.groups.empty()};
  for (const SequenceGroup& group : plan.groups) {
    executed.split_heads = executed.split_heads || (group.head_parallel > 1 && options.window == 0);
  }
  return executed;
}

void ExecuteMany(Network network) {
  const uint64_t plans = FromEnvironment("LONGSPAN_PLANS", 150);
  const uint64_t only = FromEnvironment("LONGSPAN_PLAN_SEED", 0);
  uint64_t with_rings = 0, with_split_heads = 0;
  for (uint64_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : plans); ++seed) {
    const Executed executed = Execute(network, seed);
    with_rings += executed.rings ? 1 : 0;
    with_split_heads += executed.split_heads ? 1 : 0;
    ASSERT_FALSE(::testing::Test::HasFailure()) << "replay with LONGSPAN_PLAN_SEED=" << seed;
  }
  if (only == 0) {
    EXPECT_GE(with_rings, plans / 3) << "these batches try too little";
    EXPECT_GE(with_split_heads, plans / 8) << "these batches split too few heads";
    std::cout << with_rings << " plans with rings, " << with_split_heads << " with split heads\n";
  }
}

TEST(PlanExecution, WhereSendersWaitForReceivers) { ExecuteMany(Network::kRendezvous); }
TEST(PlanExecution, WhereSmallMessagesAreBuffered) { ExecuteMany(Network::kBuffered); }
TEST(PlanExecution, WhereMessagesAreDelayed) { ExecuteMany(Network::kDelayed); }

TEST(PlanExecution, AWrongOrderOfRingsEndsInATimeOut) {
  // What Validate refuses, and what the time limit above is for: each of three ranks waits for the
  // next one's other ring.
  const Sequence sequence = RandomSequence(40, kShape, 1);
  const std::vector<std::vector<int>> rings = {{0, 1}, {1, 2}, {0, 2}};
  const int order[3][2] = {{0, 2}, {1, 0}, {2, 1}};  // of each rank's rings
  RankThreadOptions options = OptionsOf(Network::kRendezvous, 1);
  options.timeout = absl::Milliseconds(500);
  const absl::Status status = RunRanks(
      3,
      [&](Transport& transport, Device& device) -> absl::Status {
        std::vector<MemberRun> runs;
        for (int ring : order[transport.rank()]) {
          const int member = rings[ring][0] == transport.rank() ? 0 : 1;
          runs.emplace_back(Member{RingLayout{rings[ring], member, {40}}, {}, {0}, {}}, kShape,
                            /*gap=*/0, std::vector<Sequence>{sequence});
        }
        Stream stream = device.CreateStream("step");
        for (MemberRun& run : runs) {
          absl::Status queued = run.QueueForward(transport, stream, nullptr);
          if (!queued.ok()) return queued;
        }
        return stream.Synchronize();
      },
      options);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

}  // namespace
}  // namespace longspan
