#include "parallel/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "parallel/certificate.h"
#include "parallel/length_mix.h"
#include "test_plans.h"

namespace longspan {
namespace {

using ::testing::HasSubstr;

const CostModel kExample = {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3, {}};
// Policies for batches of any size.
constexpr const char* kPolicies[] = {"skyline", "bytescale", "naive", "static"};

absl::StatusOr<StepPlan> Plan(const PlanRequest& request, const std::string& policy = "skyline") {
  absl::StatusOr<std::unique_ptr<Planner>> planner = CreatePlanner(policy);
  if (!planner.ok()) return planner.status();
  return (*planner)->Plan(request);
}

// How many other ranks a rank meets in rings, at most.
size_t MostPeers(const StepPlan& plan) {
  std::vector<std::set<int>> peers(plan.ranks);
  for (const SequenceGroup& group : plan.groups) {
    for (size_t i = 0; i < group.ranks.size(); ++i) {
      const int a = group.ranks[i], b = group.ranks[(i + 1) % group.ranks.size()];
      peers[a].insert(b);
      peers[b].insert(a);
    }
  }
  size_t most = 0;
  for (const std::set<int>& each : peers) most = std::max(most, each.size());
  return most;
}

// The makespan of a plan that has been looked at from all sides.
double SoundMakespan(const PlanRequest& request, const std::string& policy) {
  const absl::StatusOr<StepPlan> plan = Plan(request, policy);
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok()) return HUGE_VAL;
  const absl::Status valid = Validate(*plan);
  EXPECT_TRUE(valid.ok()) << valid;
  EXPECT_EQ(plan->lengths, request.lengths);
  EXPECT_EQ(plan->ranks, request.ranks);
  EXPECT_EQ(plan->micro_batch_tokens, request.micro_batch_tokens);
  int64_t held = 0;
  for (const std::vector<MicroBatch>& list : plan->micro_batches) {
    for (const MicroBatch& micro_batch : list) held += micro_batch.tokens();
  }
  EXPECT_EQ(held, plan->total_tokens());
  if (policy != "bytescale") {
    EXPECT_LE(MostPeers(*plan), 4u);
  }
  const PlanCertificate& certificate = plan->certificate;
  EXPECT_GE(certificate.makespan_seconds, certificate.lower_bound_seconds);
  EXPECT_GE(certificate.gap, 0);
  if (certificate.lower_bound_seconds > 0) {
    EXPECT_NEAR(certificate.makespan_seconds / certificate.lower_bound_seconds - 1, certificate.gap,
                1e-9 * (1 + certificate.gap));
  }
  return certificate.makespan_seconds;
}

void ExpectAllSound(const PlanRequest& request, bool compare = true) {
  double best_of_others = HUGE_VAL, skyline = 0;
  std::string best_name;
  for (const std::string policy : kPolicies) {
    SCOPED_TRACE(policy);
    const double makespan = SoundMakespan(request, policy);
    if (policy == "skyline") {
      skyline = makespan;
    } else {
      if (makespan < best_of_others) best_name = policy;
      best_of_others = std::min(best_of_others, makespan);
    }
  }
  if (!compare) return;
  EXPECT_LE(skyline, best_of_others) << request.ranks << " ranks, best " << best_name;
}

// Coefficients in the planner's units of 2^-20 ns, and the policy as its header words it, without
// any data structure.
struct PlainPolicy {
  static constexpr int64_t kAttention = 3, kLinear = 1000, kRing = 450, kStep = 20000,
                           kMicroBatch = 700000;
  static CostModel Cost() {
    constexpr double kUnit = 1 / (1e9 * (1 << 20));
    return {kAttention * kUnit, kLinear * kUnit,     kRing * kUnit,
            kStep * kUnit,      kMicroBatch * kUnit, {}};
  }

  struct Load {
    int64_t tokens = 0, pairs = 0, ring_pairs = 0, ring_tokens = 0, members = 1;
    int64_t cost() const {
      const int64_t d = members;
      const int64_t transfer = kRing * ring_tokens * (d - 1) + kAttention * ring_pairs;
      return kMicroBatch + kLinear * tokens + kStep * (d - 1) +
             std::max(kAttention * pairs, d == 1 ? 0 : (transfer + d - 1) / d);
    }
    void Add(const TokenRanges& ranges) {
      for (const TokenRange& range : ranges) {
        for (int64_t i = range.begin; i < range.end; ++i) ++tokens, pairs += i + 1;
      }
    }
  };

  static StepPlan Plan(const PlanRequest& request) {
    const int64_t capacity = request.micro_batch_tokens;
    const int ranks = request.ranks;
    StepPlan plan;
    plan.ranks = ranks;
    plan.micro_batch_tokens = capacity;
    plan.lengths = request.lengths;
    plan.micro_batches.resize(ranks);
    std::vector<int64_t> order(request.lengths.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return plan.lengths[a] > plan.lengths[b]; });
    std::vector<int64_t> free_at(ranks, 0);
    std::vector<std::vector<Load>> loads(ranks);
    std::vector<std::pair<int64_t, SequenceGroup>> rings;  // start, group
    for (const int64_t sequence : order) {
      const int64_t length = plan.lengths[sequence];
      const int width = static_cast<int>((length + capacity - 1) / capacity);
      if (width == 1) continue;
      SequenceGroup group{sequence, {}};
      std::vector<int> by_free_at(ranks);
      std::iota(by_free_at.begin(), by_free_at.end(), 0);
      std::stable_sort(by_free_at.begin(), by_free_at.end(),
                       [&](int a, int b) { return free_at[a] < free_at[b]; });
      group.ranks.assign(by_free_at.begin(), by_free_at.begin() + width);
      std::sort(group.ranks.begin(), group.ranks.end());
      int64_t best_start = 0, duration = 0;
      for (const int rank : group.ranks) best_start = std::max(best_start, free_at[rank]);
      for (int member = 0; member < width; ++member) {
        duration = std::max(duration, MemberLoad(length, width, member).cost());
      }
      for (const int rank : group.ranks) free_at[rank] = best_start + duration;
      rings.push_back({best_start, group});
    }
    std::stable_sort(rings.begin(), rings.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [start, group] : rings) {
      const int64_t length = plan.lengths[group.sequence];
      const int width = static_cast<int>(group.ranks.size());
      for (int member = 0; member < width; ++member) {
        const int rank = group.ranks[member];
        plan.micro_batches[rank].push_back(
            {{{group.sequence, static_cast<int64_t>(plan.groups.size()),
               ZigzagSliceRanges(length, width, member)}}});
        loads[rank].push_back(MemberLoad(length, width, member));
      }
      plan.groups.push_back(group);
    }
    for (const int64_t sequence : order) {
      const int64_t length = plan.lengths[sequence];
      if (length > capacity) continue;
      const int rank =
          static_cast<int>(std::min_element(free_at.begin(), free_at.end()) - free_at.begin());
      size_t best = loads[rank].size();
      for (size_t i = 0; i < loads[rank].size(); ++i) {
        const int64_t tokens = loads[rank][i].tokens;
        if (loads[rank][i].members > 1) continue;
        if (tokens + length > capacity) continue;
        if (best == loads[rank].size() || tokens > loads[rank][best].tokens) best = i;
      }
      int64_t before = 0;
      if (best == loads[rank].size()) {
        loads[rank].emplace_back();
        plan.micro_batches[rank].emplace_back();
      } else {
        before = loads[rank][best].cost();
      }
      loads[rank][best].Add({{0, length}});
      plan.micro_batches[rank][best].slices.push_back({sequence, -1, {{0, length}}});
      free_at[rank] += loads[rank][best].cost() - before;
    }
    return plan;
  }

  static Load MemberLoad(int64_t length, int width, int member) {
    Load load;
    load.Add(ZigzagSliceRanges(length, width, member));
    load.ring_pairs = load.pairs;
    load.ring_tokens = length;
    load.members = width;
    return load;
  }
};

TEST(PlannerTest, IsAtLeastAsGoodAsTheExampleOfThePublicFormat) {
  const PlanRequest request{{17000, 300, 512}, 3, 8192, kExample};
  StepPlan example;
  example.ranks = 3;
  example.micro_batch_tokens = 8192;
  example.lengths = request.lengths;
  example.groups = {{0, {0, 2, 1}}};
  example.micro_batches = {{{{{0, 0, {{0, 2833}, {14166, 17000}}}, {2, -1, {{0, 512}}}}}},
                           {{{{0, 0, {{5666, 11333}}}, {1, -1, {{0, 300}}}}}},
                           {{{{0, 0, {{2833, 5666}, {11333, 14166}}}}}}};
  ASSERT_TRUE(Validate(example).ok()) << Validate(example);
  const absl::StatusOr<PlanCertificate> certificate = Certify(example, kExample);
  ASSERT_TRUE(certificate.ok());
  const absl::StatusOr<StepPlan> plan = Plan(request), exact = Plan(request, "exact");
  ASSERT_TRUE(plan.ok() && exact.ok()) << plan.status() << exact.status();
  EXPECT_LE(plan->certificate.makespan_seconds, certificate->makespan_seconds);
  EXPECT_LE(exact->certificate.makespan_seconds, plan->certificate.makespan_seconds);
}

TEST(PlannerTest, BytescaleEqualsThePlainPolicy) {
  Random random(2);
  int64_t groups = 0;
  for (int trial = 0; trial < 300; ++trial) {
    PlanRequest request;
    request.ranks = static_cast<int>(random.Between(1, 24));
    request.micro_batch_tokens = 2 * random.Between(1, 60);
    request.cost = PlainPolicy::Cost();
    const int64_t longest = random.Between(1, request.ranks * request.micro_batch_tokens);
    const int64_t sequences = random.Between(0, 120);
    for (int64_t i = 0; i < sequences; ++i) request.lengths.push_back(random.LongTailed(longest));
    const absl::StatusOr<StepPlan> plan = Plan(request, "bytescale");
    ASSERT_TRUE(plan.ok()) << plan.status();
    const StepPlan expected = PlainPolicy::Plan(request);
    ASSERT_EQ(plan->groups, expected.groups) << "trial " << trial;
    ASSERT_EQ(plan->micro_batches, expected.micro_batches) << "trial " << trial;
    ASSERT_EQ(HashOf(*plan), HashOf(expected));
    groups += static_cast<int64_t>(plan->groups.size());
  }
  EXPECT_GT(groups, 1000);
}

TEST(PlannerTest, RandomBatchesAreSound) {
  Random random(3);
  for (int trial = 0; trial < 100; ++trial) {
    PlanRequest request;
    request.ranks = static_cast<int>(random.Between(1, 70));
    request.micro_batch_tokens = 2 * random.Between(1, 5000);
    request.cost = kExample;
    const int64_t sequences = random.Between(1, 300);
    for (int64_t i = 0; i < sequences; ++i) {
      request.lengths.push_back(random.LongTailed(request.ranks * request.micro_batch_tokens));
    }
    ExpectAllSound(request);
    if (HasFatalFailure()) FAIL() << "trial " << trial;
  }
}

TEST(PlannerTest, AdversarialBatchesAreSound) {
  const int64_t c = 512;
  for (const int ranks : {1, 2, 3, 7, 64}) {
    const std::vector<std::vector<int64_t>> batches = {
        std::vector<int64_t>(500, 1),
        std::vector<int64_t>(100, c),
        std::vector<int64_t>(101, c / 2 + 1),
        std::vector<int64_t>(40, std::min<int64_t>(c + 1, ranks * c)),
        std::vector<int64_t>(9, ranks * c),
        std::vector<int64_t>(9, (ranks - 1) * c + 1),
        {ranks * c, ranks * c, 1, 2, 3},
        {1},
    };
    for (const std::vector<int64_t>& lengths : batches) {
      ExpectAllSound({lengths, ranks, c, kExample});
      if (HasFatalFailure()) FAIL() << ranks << " ranks, first length " << lengths[0];
    }
  }
}

TEST(PlannerTest, ExtremeCostModelsAreSound) {
  const CostModel models[] = {{},
                              {0, 0, 0, 0, 1, {}},
                              {1e-3, 16, 16, 16, 16, {}},
                              {0, 0, 1e-3, 1e-3, 0, {}},
                              {1e-9, 0, 0, 0, 0, {}}};
  Random random(4);
  for (const CostModel& cost : models) {
    PlanRequest request{{}, 9, 64, cost};
    for (int i = 0; i < 60; ++i) request.lengths.push_back(random.LongTailed(9 * 64));
    // Where only messages cost, whoever picks ranks freely has an edge over at most four peers
    // each.
    const bool messages_only = cost.ring_step_seconds > 0 && cost.linear_seconds_per_token == 0;
    ExpectAllSound(request, /*compare=*/!messages_only);
  }
}

TEST(PlannerTest, ZeroCostsBalanceTokens) {
  const absl::StatusOr<StepPlan> plan = Plan({std::vector<int64_t>(8, 10), 4, 64, CostModel{}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const std::vector<MicroBatch>& list : plan->micro_batches) {
    ASSERT_EQ(list.size(), 1u);
    EXPECT_EQ(list[0].tokens(), 20);
  }
}

TEST(PlannerTest, RanksWithoutWorkHaveEmptyLists) {
  const absl::StatusOr<StepPlan> plan = Plan({{5, 7, 20}, 6, 16, kExample});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(Validate(*plan).ok()) << Validate(*plan);
  EXPECT_EQ(plan->micro_batches[2].size(), 1u);
  EXPECT_EQ(plan->micro_batches[3].size(), 1u);
  EXPECT_TRUE(plan->micro_batches[4].empty());
  EXPECT_TRUE(plan->micro_batches[5].empty());
  const absl::StatusOr<StepPlan> nothing = Plan({{}, 2, 16, kExample});
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_TRUE(Validate(*nothing).ok());
  EXPECT_EQ(nothing->certificate.gap, 0);
}

TEST(PlannerTest, ThePlanIsTheSameOnEveryMachineAndThread) {
  PlanRequest request{{}, 64, 4096, kExample};
  Random random(5);
  for (int i = 0; i < 2000; ++i) request.lengths.push_back(random.LongTailed(64 * 4096));
  std::vector<uint64_t> hashes(4);
  std::vector<std::thread> threads;
  for (uint64_t& hash : hashes) {
    threads.emplace_back([&hash, &request] {
      const absl::StatusOr<StepPlan> plan = Plan(request);
      hash = plan.ok() ? HashOf(*plan) : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Recorded; a change of policy may change it, a change of machine must not.
  for (const uint64_t hash : hashes) EXPECT_EQ(hash, 10313986301653483543u);
}

// How long it takes: tests/bench/plan_bench.
TEST(PlannerTest, LargeClustersAreSound) {
  struct Case {
    const char* name;
    int ranks;
    std::vector<int64_t> lengths;
  };
  constexpr int64_t kCapacity = 8192;
  Case cases[] = {{"long-tailed", 12288, {}},
                  {"all C + 1", 12288, std::vector<int64_t>(30000, kCapacity + 1)},
                  {"all C + 1", 2, std::vector<int64_t>(20000, kCapacity + 1)},
                  {"all C / 2 + 1", 12288, std::vector<int64_t>(30000, kCapacity / 2 + 1)},
                  {"all C / 2 + 1", 1, std::vector<int64_t>(20000, kCapacity / 2 + 1)},
                  {"every width", 12288, {}}};
  Random random(6);
  for (int i = 0; i < 29000; ++i) cases[0].lengths.push_back(random.LongTailed(8192));
  for (int i = 0; i < 1000; ++i) cases[0].lengths.push_back(random.LongTailed(1 << 21));
  for (int64_t d = 1; d <= 500; ++d) cases[5].lengths.push_back(d * kCapacity);
  for (const Case& each : cases) {
    const PlanRequest request{each.lengths, each.ranks, kCapacity, kExample};
    SCOPED_TRACE(each.name);
    SoundMakespan(request, "skyline");
  }
}

TEST(PlannerTest, ASequenceTooLongNamesWhatWouldHoldIt) {
  const absl::Status status = Plan({{10, 70001}, 4, 8192, kExample}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("sequence 1 has 70001 tokens"));
  EXPECT_THAT(message, HasSubstr("32768"));
  EXPECT_THAT(message, HasSubstr("--set batch.micro_batch_tokens=17502"));
  EXPECT_THAT(message, HasSubstr("at least 9 ranks"));
  EXPECT_TRUE(Plan({{10, 70001}, 4, 17502, kExample}).ok());
  EXPECT_FALSE(Plan({{10, 70001}, 4, 17500, kExample}).ok());
  EXPECT_TRUE(Plan({{10, 70001}, 9, 8192, kExample}).ok());
  EXPECT_FALSE(Plan({{10, 70001}, 8, 8192, kExample}).ok());
}

TEST(PlannerTest, RefusesRequestsOutOfRange) {
  CostModel negative = kExample;
  negative.linear_seconds_per_token = -1;
  const struct {
    PlanRequest request;
    const char* message;
  } cases[] = {
      {{{1}, 0, 8, kExample}, "0 ranks"},
      {{{1}, 1, 7, kExample}, "micro_batch_tokens is 7"},
      {{{1}, 1, 0, kExample}, "micro_batch_tokens is 0"},
      {{{4, 0}, 1, 8, kExample}, "sequence 1 has length 0"},
      {{{int64_t{1} << 62}, 1, 8, kExample}, "sequence 0 has 4611686018427387904 tokens"},
      {{std::vector<int64_t>(3, int64_t{1} << 35), 1 << 30, 64, kExample}, "tokens in one step"},
      {{{1}, 1, 8, negative}, "linear_seconds_per_token is -1"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Plan(c.request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

// Every plan of the format is the search space, so nothing may be better; and skyline comes close.
TEST(PlannerTest, SkylineIsCloseToExactOnTinyBatches) {
  Random random(7);
  double sum = 0, worst = 0, bytescale_sum = 0;
  int cases = 0;
  for (int trial = 0; trial < 400; ++trial) {
    PlanRequest request;
    request.ranks = static_cast<int>(random.Between(1, 5));
    request.micro_batch_tokens = 2 * random.Between(500, 8192);
    request.cost = kExample;
    const int64_t sequences = random.Between(1, 6);
    const int64_t longest =
        std::min<int64_t>(request.ranks, random.Between(1, 4)) * request.micro_batch_tokens;
    for (int64_t i = 0; i < sequences; ++i) {
      request.lengths.push_back(trial % 2 == 0 ? random.LongTailed(longest)
                                               : random.Between(1, longest));
    }
    const absl::StatusOr<StepPlan> exact = Plan(request, "exact");
    ASSERT_TRUE(exact.ok()) << exact.status();
    ASSERT_TRUE(Validate(*exact).ok()) << Validate(*exact);
    const double optimum = exact->certificate.makespan_seconds;
    for (const std::string policy : kPolicies) {
      const absl::StatusOr<StepPlan> plan = Plan(request, policy);
      ASSERT_TRUE(plan.ok()) << plan.status();
      ASSERT_GE(plan->certificate.makespan_seconds, optimum * (1 - 1e-12))
          << policy << " is better than exact in trial " << trial;
      const double gap = plan->certificate.makespan_seconds / optimum - 1;
      if (policy == "skyline") {
        sum += gap;
        worst = std::max(worst, gap);
      } else if (policy == "bytescale") {
        bytescale_sum += gap;
      }
    }
    ++cases;
  }
  std::cout << cases << " cases: skyline " << 100 * sum / cases << "% over the optimum on average, "
            << 100 * worst << "% at worst; bytescale " << 100 * bytescale_sum / cases << "%\n";
  EXPECT_LT(sum / cases, 0.02);
}

TEST(PlannerTest, ExactRefusesWhatItCannotPlan) {
  const absl::Status many = Plan({std::vector<int64_t>(40, 5), 2, 64, kExample}, "exact").status();
  EXPECT_EQ(many.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(many.message()), HasSubstr("at most 8 ranks and 12 sequences"));
  CostModel cost = kExample;
  cost.rank_speeds = {1, 2};
  const absl::Status speeds = Plan({{5, 6}, 2, 64, cost}, "exact").status();
  EXPECT_THAT(std::string(speeds.message()), HasSubstr("different speeds"));
}

std::vector<int64_t> Mix(const char* mix, int64_t tokens, uint64_t seed = 1) {
  const absl::StatusOr<std::vector<int64_t>> lengths = DrawLengths({mix, tokens, 0, seed});
  EXPECT_TRUE(lengths.ok()) << lengths.status();
  return lengths.ok() ? *lengths : std::vector<int64_t>();
}

// tests/bench/plan_bench shows the same up to 12,288 ranks.
TEST(PlannerTest, EveryMixIsWithinTwoPercentOfTheBound) {
  for (const std::string& mix : LengthMixes()) {
    for (const int ranks : {64, 256, 1024}) {
      const int64_t capacity = std::max<int64_t>(8192, (int64_t{2} << 20) / (ranks / 2));
      const PlanRequest request{Mix(mix.c_str(), 4 * capacity * ranks), ranks, capacity, kExample};
      const absl::StatusOr<StepPlan> plan = Plan(request);
      ASSERT_TRUE(plan.ok()) << plan.status();
      ASSERT_TRUE(Validate(*plan).ok()) << Validate(*plan);
      EXPECT_LE(plan->certificate.gap, 0.02) << mix << ", " << ranks << " ranks";
      EXPECT_LE(MostPeers(*plan), 4u);
    }
  }
}

TEST(PlannerTest, SlowRanksGetLess) {
  PlanRequest request{Mix("github", 4 * 65536 * 64), 64, 65536, kExample};
  // A tenth of the ranks at three quarters of the speed.
  request.cost.rank_speeds.assign(64, 1.0);
  for (int rank = 0; rank < 64; rank += 10) request.cost.rank_speeds[rank] = 0.75;
  const absl::StatusOr<StepPlan> plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_TRUE(Validate(*plan).ok()) << Validate(*plan);
  EXPECT_LE(MostPeers(*plan), 4u);
  // Balanced for the speeds that there are, far from what a plan that does not know them would
  // take.
  EXPECT_LT(plan->certificate.gap, 0.05);
  PlanRequest unaware = request;
  unaware.cost.rank_speeds.clear();
  absl::StatusOr<StepPlan> other = Plan(unaware);
  ASSERT_TRUE(other.ok());
  const absl::StatusOr<PlanCertificate> certificate = Certify(*other, request.cost);
  ASSERT_TRUE(certificate.ok());
  EXPECT_LT(plan->certificate.makespan_seconds, 0.85 * certificate->makespan_seconds);
}

TEST(PlannerTest, RefusesSpeedsOutOfRange) {
  PlanRequest request{{5, 6}, 2, 64, kExample};
  request.cost.rank_speeds = {1};
  EXPECT_THAT(std::string(Plan(request).status().message()), HasSubstr("1 speeds for 2 ranks"));
  request.cost.rank_speeds = {1, 0};
  EXPECT_THAT(std::string(Plan(request).status().message()), HasSubstr("rank_speeds[1] is 0"));
  request.cost.rank_speeds = {};
  request.ranks_per_node = -1;
  EXPECT_THAT(std::string(Plan(request).status().message()), HasSubstr("ranks_per_node is -1"));
}

TEST(PlannerTest, RingsKeepInsideNodesAtNoCost) {
  double known = 0, unknown = 0;
  for (const char* mix : {"byted", "github", "code"}) {
    PlanRequest request{Mix(mix, 4 * 16384 * 256), 256, 16384, kExample};
    const absl::StatusOr<StepPlan> flat = Plan(request);
    request.ranks_per_node = 8;
    const absl::StatusOr<StepPlan> plan = Plan(request);
    ASSERT_TRUE(flat.ok() && plan.ok());
    ASSERT_TRUE(Validate(*plan).ok()) << Validate(*plan);
    EXPECT_EQ(plan->certificate.makespan_seconds, flat->certificate.makespan_seconds) << mix;
    EXPECT_LE(MostPeers(*plan), 4u);
    const RingTraffic before = RingTrafficOf(*flat, 8), after = RingTrafficOf(*plan, 8);
    EXPECT_EQ(before.tokens, after.tokens);
    EXPECT_LE(after.cross_node_tokens, before.cross_node_tokens) << mix;
    unknown += before.cross_node_tokens;
    known += after.cross_node_tokens;
  }
  EXPECT_LT(known, unknown);
}

TEST(PlannerTest, UnknownPoliciesListTheKnownOnes) {
  const auto planner = CreatePlanner("minimal");
  EXPECT_EQ(planner.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(planner.status().message()), HasSubstr("\"minimal\""));
  for (const std::string& policy : PlannerPolicies()) {
    EXPECT_THAT(std::string(planner.status().message()), HasSubstr(policy));
    const auto known = CreatePlanner(policy);
    ASSERT_TRUE(known.ok());
    EXPECT_EQ((*known)->name(), policy);
  }
}

}  // namespace
}  // namespace longspan
