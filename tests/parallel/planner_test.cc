#include "parallel/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "test_plans.h"

namespace longspan {
namespace {

using ::testing::HasSubstr;

constexpr CostModel kExample = {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3};

absl::StatusOr<StepPlan> Plan(const PlanRequest& request) {
  absl::StatusOr<std::unique_ptr<Planner>> planner = CreatePlanner("minimum-width");
  if (!planner.ok()) return planner.status();
  return (*planner)->Plan(request);
}

void ExpectSound(const PlanRequest& request) {
  const absl::StatusOr<StepPlan> plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const absl::Status valid = Validate(*plan);
  ASSERT_TRUE(valid.ok()) << valid;
  EXPECT_EQ(plan->lengths, request.lengths);
  EXPECT_EQ(plan->ranks, request.ranks);
  EXPECT_EQ(plan->micro_batch_tokens, request.micro_batch_tokens);
  int64_t held = 0;
  for (const std::vector<MicroBatch>& list : plan->micro_batches) {
    bool whole_only = false;
    for (const MicroBatch& micro_batch : list) {
      held += micro_batch.tokens();
      const bool ring = std::any_of(micro_batch.slices.begin(), micro_batch.slices.end(),
                                    [](const SequenceSlice& slice) { return slice.group >= 0; });
      EXPECT_FALSE(ring && whole_only) << "micro-batches without a ring go last";
      whole_only = whole_only || !ring;
    }
  }
  EXPECT_EQ(held, plan->total_tokens());
  for (const SequenceGroup& group : plan->groups) {
    const int64_t width = static_cast<int64_t>(group.ranks.size());
    const int64_t needed = (request.lengths[group.sequence] + request.micro_batch_tokens - 1) /
                           request.micro_batch_tokens;
    EXPECT_EQ(width, needed);
    const auto [low, high] = std::minmax_element(group.ranks.begin(), group.ranks.end());
    EXPECT_EQ(*high - *low + 1, width) << "an interval of ranks";
    for (int64_t i = 0; i < width; ++i) {
      EXPECT_LE(std::abs(group.ranks[i] - group.ranks[(i + 1) % width]), 2);
    }
  }
  const PlanCertificate& certificate = plan->certificate;
  EXPECT_GE(certificate.makespan_seconds, certificate.lower_bound_seconds);
  EXPECT_GE(certificate.gap, 0);
  EXPECT_NEAR(certificate.makespan_seconds / certificate.lower_bound_seconds - 1, certificate.gap,
              1e-9 * (1 + certificate.gap));
}

// Coefficients in the planner's units of 2^-20 ns, and the policy as its header words it, without
// any data structure.
struct PlainPolicy {
  static constexpr int64_t kAttention = 3, kLinear = 1000, kRing = 450, kStep = 20000,
                           kMicroBatch = 700000;
  static CostModel Cost() {
    constexpr double kUnit = 1 / (1e9 * (1 << 20));
    return {kAttention * kUnit, kLinear * kUnit, kRing * kUnit, kStep * kUnit, kMicroBatch * kUnit};
  }

  struct Load {
    int64_t tokens = 0, pairs = 0, ring_pairs = 0, ring_tokens = 0, members = 1;
    int64_t cost() const {
      const int64_t d = members;
      const int64_t transfer = kRing * ring_tokens * (d - 1) + kAttention * ring_pairs;
      return kMicroBatch + kLinear * tokens + kStep * (d - 1) +
             std::max(kAttention * pairs, d == 1 ? 0 : (transfer + d - 1) / d);
    }
    void Add(const std::vector<TokenRange>& ranges) {
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
      int best = -1;
      int64_t best_start = 0;
      for (int first = 0; first + width <= ranks; ++first) {
        const int64_t start =
            *std::max_element(free_at.begin() + first, free_at.begin() + first + width);
        if (best < 0 || start < best_start) best = first, best_start = start;
      }
      int64_t duration = 0;
      for (int member = 0; member < width; ++member) {
        duration = std::max(duration, MemberLoad(length, width, member).cost());
      }
      std::fill_n(free_at.begin() + best, width, best_start + duration);
      SequenceGroup group{sequence, {}};
      for (int i = 0; i < width; ++i) {
        if (i % 2 == 0) group.ranks.push_back(best + i);
      }
      for (int i = width - 1; i >= 0; --i) {
        if (i % 2 == 1) group.ranks.push_back(best + i);
      }
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

TEST(PlannerTest, MakesTheExampleOfThePublicFormat) {
  const absl::StatusOr<StepPlan> plan = Plan({{17000, 300, 512}, 3, 8192, kExample});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->groups, (std::vector<SequenceGroup>{{0, {0, 2, 1}}}));
  const std::vector<std::vector<MicroBatch>> expected = {
      {{{{0, 0, {{0, 2833}, {14166, 17000}}}, {2, -1, {{0, 512}}}}}},
      {{{{0, 0, {{5666, 11333}}}, {1, -1, {{0, 300}}}}}},
      {{{{0, 0, {{2833, 5666}, {11333, 14166}}}}}}};
  EXPECT_EQ(plan->micro_batches, expected);
}

TEST(PlannerTest, EqualsThePlainPolicy) {
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
    const absl::StatusOr<StepPlan> plan = Plan(request);
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
  for (int trial = 0; trial < 200; ++trial) {
    PlanRequest request;
    request.ranks = static_cast<int>(random.Between(1, 70));
    request.micro_batch_tokens = 2 * random.Between(1, 5000);
    request.cost = kExample;
    const int64_t sequences = random.Between(1, 300);
    for (int64_t i = 0; i < sequences; ++i) {
      request.lengths.push_back(random.LongTailed(request.ranks * request.micro_batch_tokens));
    }
    ExpectSound(request);
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
      ExpectSound({lengths, ranks, c, kExample});
      if (HasFatalFailure()) FAIL() << ranks << " ranks, first length " << lengths[0];
    }
  }
}

TEST(PlannerTest, ExtremeCostModelsAreSound) {
  const CostModel models[] = {
      {}, {0, 0, 0, 0, 1}, {16, 16, 16, 16, 16}, {0, 0, 1e-3, 1e-3, 0}, {1e-9, 0, 0, 0, 0}};
  Random random(4);
  for (const CostModel& cost : models) {
    PlanRequest request{{}, 9, 64, cost};
    for (int i = 0; i < 60; ++i) request.lengths.push_back(random.LongTailed(9 * 64));
    ExpectSound(request);
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
  for (const uint64_t hash : hashes) EXPECT_EQ(hash, 8400988065883802031u);
}

// The processor time, which other programs on the machine change little.
double SecondsOf(const std::function<void()>& work) {
  const std::clock_t begin = std::clock();
  work();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST(PlannerTest, LargeClustersPlanInTime) {
  struct Case {
    const char* name;
    int ranks;
    std::vector<int64_t> lengths;
  };
  constexpr int64_t kCapacity = 8192;
  Case cases[] = {{"long-tailed", 12288, {}},
                  {"all C + 1", 12288, std::vector<int64_t>(100000, kCapacity + 1)},
                  {"all C + 1", 2, std::vector<int64_t>(20000, kCapacity + 1)},
                  {"all C / 2 + 1", 12288, std::vector<int64_t>(100000, kCapacity / 2 + 1)},
                  {"all C / 2 + 1", 1, std::vector<int64_t>(20000, kCapacity / 2 + 1)},
                  {"every width", 12288, {}}};
  Random random(6);
  for (int i = 0; i < 99000; ++i) cases[0].lengths.push_back(random.LongTailed(8192));
  for (int i = 0; i < 1000; ++i) cases[0].lengths.push_back(random.LongTailed(1 << 21));
  for (int64_t d = 1; d <= 500; ++d) cases[5].lengths.push_back(d * kCapacity);
  for (const Case& each : cases) {
    const PlanRequest request{each.lengths, each.ranks, kCapacity, kExample};
    absl::StatusOr<StepPlan> plan;
    const double planning = SecondsOf([&] { plan = Plan(request); });
    ASSERT_TRUE(plan.ok()) << plan.status();
    absl::Status valid;
    const double validating = SecondsOf([&] { valid = Validate(*plan); });
    ASSERT_TRUE(valid.ok()) << valid;
    std::cout << each.name << ", " << each.ranks << " ranks, " << each.lengths.size()
              << " sequences, " << plan->groups.size() << " groups: plan " << planning * 1e3
              << " ms, validate " << validating * 1e3 << " ms, gap " << plan->certificate.gap
              << "\n";
    // Some 0.1 s in an optimised build; sanitizers take several times as long.
    EXPECT_LT(planning + validating, 5);
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
