#include "parallel/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <limits>
#include <set>
#include <sstream>
#include <string>

#include "test_plans.h"

namespace longspan {
namespace {

using ::testing::HasSubstr;

void ExpectSame(const StepPlan& a, const StepPlan& b) {
  EXPECT_EQ(a.ranks, b.ranks);
  EXPECT_EQ(a.micro_batch_tokens, b.micro_batch_tokens);
  EXPECT_EQ(a.lengths, b.lengths);
  EXPECT_EQ(a.groups, b.groups);
  EXPECT_EQ(a.micro_batches, b.micro_batches);
}

std::string GoldenText() {
  std::ifstream file(LONGSPAN_TEST_DATA "/../golden/plan-v1.json");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ZigzagTest, PartsCoverTheSequenceAndDifferByAToken) {
  for (int members = 1; members <= 7; ++members) {
    for (int64_t length = 0; length <= 60; ++length) {
      std::vector<int> holders(length, 0);
      for (int member = 0; member < members; ++member) {
        for (const TokenRange& range : ZigzagRanges(length, members, member)) {
          EXPECT_GE(range.size(), length / (2 * members));
          EXPECT_LE(range.size(), (length + 2 * members - 1) / (2 * members));
          for (int64_t i = range.begin; i < range.end; ++i) ++holders[i];
        }
      }
      EXPECT_EQ(std::count(holders.begin(), holders.end(), 1), length)
          << length << " tokens, " << members << " members";
    }
  }
}

TEST(ZigzagTest, CutsAreExactForHugeLengths) {
  const int64_t length = (int64_t{1} << 61) + 12345;
  const int members = 1000;
  const auto cut = [&](int64_t k) {
    __extension__ using Wide = __int128;
    return static_cast<int64_t>(static_cast<Wide>(k) * length / (2 * members));
  };
  for (int member : {0, 1, 499, 998, 999}) {
    const auto ranges = ZigzagRanges(length, members, member);
    const int64_t mirror = 2 * members - 1 - member;
    EXPECT_EQ(ranges[0], (TokenRange{cut(member), cut(member + 1)}));
    EXPECT_EQ(ranges[1], (TokenRange{cut(mirror), cut(mirror + 1)}));
  }
}

TEST(ZigzagTest, SliceRangesLeaveOutEmptyAndMergeAdjacent) {
  EXPECT_EQ(ZigzagSliceRanges(17000, 3, 2), (TokenRanges{{5666, 11333}}));
  EXPECT_EQ(ZigzagSliceRanges(17000, 3, 0), (TokenRanges{{0, 2833}, {14166, 17000}}));
  EXPECT_EQ(ZigzagSliceRanges(1, 2, 0), (TokenRanges{{0, 1}}));
  EXPECT_TRUE(ZigzagSliceRanges(1, 2, 1).empty());
}

TEST(PlanJsonTest, ReadsTheGoldenFileOfVersion1) {
  const absl::StatusOr<StepPlan> plan = StepPlanFromJson(GoldenText());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(Validate(*plan).ok()) << Validate(*plan);
  EXPECT_EQ(plan->ranks, 3);
  EXPECT_EQ(plan->micro_batch_tokens, 8192);
  EXPECT_EQ(plan->total_tokens(), 17812);
  EXPECT_EQ(plan->groups, (std::vector<SequenceGroup>{{0, {0, 2, 1}}}));
  EXPECT_EQ(plan->micro_batches[1][0].slices[1], (SequenceSlice{1, -1, {{0, 300}}}));
  EXPECT_EQ(plan->micro_batches[0][0].tokens(), 2833 + 2834 + 512);
  EXPECT_EQ(plan->certificate.makespan_seconds, 1.5);
  EXPECT_EQ(plan->certificate.lower_bound_seconds, 1.25);
  EXPECT_EQ(plan->certificate.gap, 0.2);
  EXPECT_EQ(plan->certificate.area_seconds, 1.25);
  EXPECT_EQ(plan->certificate.longest_seconds, 1.0);
  EXPECT_EQ(plan->certificate.wide_seconds, 0.75);
  EXPECT_EQ(plan->certificate.planning_seconds, 0.125);
  // Ranks on different machines compare this number: it must never change.
  EXPECT_EQ(HashOf(*plan), 12167359702725375096u);
}

TEST(PlanJsonTest, WritesTheGoldenFileUpToSpace) {
  const std::string golden = GoldenText();
  const absl::StatusOr<StepPlan> plan = StepPlanFromJson(golden);
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::string expected;
  std::copy_if(golden.begin(), golden.end(), std::back_inserter(expected),
               [](char c) { return c != ' ' && c != '\n'; });
  EXPECT_EQ(ToJson(*plan), expected);
}

TEST(PlanJsonTest, RoundTrip) {
  StepPlan plan = TwoRingPlan();
  plan.groups[2].head_parallel = 3;
  plan.certificate = {0.1, 1.0 / 3, 1e-300, 1, 2, 3, 4};
  const absl::StatusOr<StepPlan> read = StepPlanFromJson(ToJson(plan));
  ASSERT_TRUE(read.ok()) << read.status();
  ExpectSame(*read, plan);
  EXPECT_EQ(read->certificate.lower_bound_seconds, 1.0 / 3);
  EXPECT_EQ(read->certificate.gap, 1e-300);
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(PlanJsonTest, IgnoresUnknownKeysAndAMissingCertificate) {
  std::string text = Replaced(GoldenText(), "\"ranks\": 3", "\"ranks\": 3, \"color\": [1]");
  text = Replaced(text, "\"group\": 0,", "\"group\": 0, \"offload\": 0.5,");
  text = Replaced(text, "\"certificate\"", "\"something\"");
  const absl::StatusOr<StepPlan> plan = StepPlanFromJson(text);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(HashOf(*plan), HashOf(*StepPlanFromJson(GoldenText())));
  EXPECT_EQ(plan->certificate.gap, 0);
}

TEST(PlanJsonTest, RefusesWhatItCannotReadAndSaysWhere) {
  const struct {
    const char *from, *to, *message;
  } cases[] = {
      {"\"version\": 1", "\"version\": 2", "longspan-plan version 2"},
      {"longspan-plan", "longspan-plot", "format is \"longspan-plot\""},
      {"\"version\": 1,", "", "version is missing"},
      {"\"ranks\": 3", "\"ranks\": 3.5", "ranks must be an integer"},
      {"\"ranks\": 3", "\"ranks\": 0", "ranks must be an integer from 1"},
      {"\"ranks\": 3", "\"ranks\": true", "ranks must be an integer"},
      {"\"ranks\": 3", "\"ranks\": 5000000000", "ranks must be an integer"},
      {"17000, 300", "17000, \"300\"", "lengths[1] must be an integer"},
      {"17000, 300", "17000, 18446744073709551615", "lengths[1] must be an integer"},
      {"[0, 2, 1]", "7", "groups[0].ranks must be an array"},
      {"[0, 2, 1]", "[0, 2, 1], \"head_parallel\": 0",
       "groups[0].head_parallel must be an integer from 1"},
      {"[0, 2, 1]", "[0, -2, 1]", "groups[0].ranks[1] must be an integer from 0"},
      {"[0, 512]", "[0, 512, 3]", "micro_batches[0][0].slices[1].ranges[0] must be a pair"},
      {"[0, 512]", "[512, 0]", "micro_batches[0][0].slices[1].ranges[0] must be an integer"},
      {"\"group\": 0", "\"group\": \"a\"", "micro_batches[0][0].slices[0].group must be"},
      {"{\"slices\": ", "{\"slice\": ", "micro_batches[0][0].slices is missing"},
      {"\"gap\": 0.2", "\"gap\": null", "certificate.gap must be a number"},
      {"{\"format\"", "[{\"format\"", "plan JSON"},
  };
  for (const auto& c : cases) {
    const absl::StatusOr<StepPlan> plan = StepPlanFromJson(Replaced(GoldenText(), c.from, c.to));
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(c.message));
  }
  EXPECT_THAT(std::string(StepPlanFromJson("[1, 2]").status().message()),
              HasSubstr("the document must be an object"));
}

TEST(PlanHashTest, EveryPartButTheCertificateCounts) {
  const std::vector<std::function<void(StepPlan&)>> changes = {
      [](StepPlan& plan) { plan.ranks = 5; },
      [](StepPlan& plan) { plan.micro_batch_tokens = 10; },
      [](StepPlan& plan) { plan.lengths[4] = 7; },
      [](StepPlan& plan) { plan.lengths.push_back(0); },
      [](StepPlan& plan) { plan.groups.pop_back(); },
      [](StepPlan& plan) { plan.groups[0].sequence = 3; },
      [](StepPlan& plan) { std::swap(plan.groups[2].ranks[0], plan.groups[2].ranks[1]); },
      [](StepPlan& plan) { plan.groups[2].head_parallel = 3; },
      [](StepPlan& plan) { plan.groups[1].head_parallel = 2; },
      [](StepPlan& plan) { std::swap(plan.micro_batches[0], plan.micro_batches[2]); },
      [](StepPlan& plan) { std::swap(plan.micro_batches[0][0], plan.micro_batches[0][1]); },
      [](StepPlan& plan) { plan.micro_batches[0][0].slices[0].sequence = 3; },
      [](StepPlan& plan) { plan.micro_batches[0][0].slices[0].group = 0; },
      [](StepPlan& plan) { plan.micro_batches[0][0].slices[0].ranges[0].begin = 1; },
      [](StepPlan& plan) { plan.micro_batches[0][0].slices[0].ranges[0].end = 7; },
      [](StepPlan& plan) { plan.micro_batches[0][0].slices[0].ranges.clear(); },
  };
  std::set<uint64_t> hashes = {HashOf(TwoRingPlan())};
  for (const auto& change : changes) {
    StepPlan plan = TwoRingPlan();
    change(plan);
    hashes.insert(HashOf(plan));
  }
  EXPECT_EQ(hashes.size(), changes.size() + 1);

  StepPlan plan = TwoRingPlan();
  plan.certificate.planning_seconds = 7;
  plan.certificate.gap = 1;
  EXPECT_EQ(HashOf(plan), HashOf(TwoRingPlan()));
}

TEST(ValidateTest, AcceptsTheFormatsOwnCases) {
  EXPECT_TRUE(Validate(TwoRingPlan()).ok()) << Validate(TwoRingPlan());
  StepPlan empty;
  empty.micro_batch_tokens = 2;
  empty.micro_batches.resize(1);
  EXPECT_TRUE(Validate(empty).ok()) << Validate(empty);
  StepPlan split = TwoRingPlan();
  split.groups[0].head_parallel = split.groups[1].head_parallel = 2;
  split.groups[2].head_parallel = 3;
  EXPECT_TRUE(Validate(split).ok()) << Validate(split);
  // A document shorter than its ring: one member holds no token, but takes part.
  StepPlan tiny = empty;
  tiny.ranks = 2;
  tiny.lengths = {1};
  tiny.groups = {{0, {1, 0}}};
  tiny.micro_batches = {{{{{0, 0, {}}}}}, {{{{0, 0, {{0, 1}}}}}}};
  EXPECT_TRUE(Validate(tiny).ok()) << Validate(tiny);
}

struct Breakage {
  const char* rule;
  std::function<void(StepPlan&)> change;
  const char* message;
};

TEST(ValidateTest, EachRuleIsProved) {
  using P = StepPlan;
  const std::vector<Breakage> breakages = {
      {"ranks", [](P& p) { p.ranks = 0; }, "0 ranks"},
      {"one list a rank", [](P& p) { p.micro_batches.pop_back(); },
       "micro-batch lists for 3 ranks"},
      {"even capacity", [](P& p) { p.micro_batch_tokens = 9; }, "micro_batch_tokens is 9"},
      {"positive capacity", [](P& p) { p.micro_batch_tokens = 0; }, "micro_batch_tokens is 0"},
      {"positive length", [](P& p) { p.lengths[3] = 0; }, "sequence 3 has length 0"},
      {"sums do not overflow",
       [](P& p) { p.lengths[3] = p.lengths[4] = std::numeric_limits<int64_t>::max() / 2; },
       "sequences up to 3 have more than 68719476736 tokens"},
      {"group's sequence exists", [](P& p) { p.groups[0].sequence = 5; },
       "group 0 is for sequence 5"},
      {"one group a sequence", [](P& p) { p.groups[1].sequence = 1; },
       "sequence 1 has two groups, 0 and 1"},
      {"two members", [](P& p) { p.groups[1].ranks = {1}; }, "group 1 of sequence 0 has 1 ranks"},
      {"members exist", [](P& p) { p.groups[2].ranks[1] = 4; },
       "group 2 of sequence 2 has rank 4 of a job of 4"},
      {"members differ", [](P& p) { p.groups[2].ranks[1] = 0; },
       "group 2 of sequence 2 has rank 0 twice"},
      {"heads are split among equal blocks", [](P& p) { p.groups[2].head_parallel = 2; },
       "group 2 of sequence 2 has 3 ranks and head_parallel = 2; it must be positive and divide"},
      {"heads are split by a positive number", [](P& p) { p.groups[2].head_parallel = 0; },
       "group 2 of sequence 2 has 3 ranks and head_parallel = 0"},
      {"one way to split heads in a ring", [](P& p) { p.groups[1].head_parallel = 2; },
       "rank 1, micro-batch 0 holds slices of sequences 1 and 0 of groups 0 and 1 with different "
       "rank lists or head_parallel"},
      {"no empty micro-batch", [](P& p) { p.micro_batches[2].emplace_back(); },
       "rank 2, micro-batch 1 is empty"},
      {"capacity", [](P& p) { p.micro_batch_tokens = 6; },
       "rank 0, micro-batch 0 holds 8 tokens, the last of them of sequence 4"},
      {"whole sequence exists", [](P& p) { p.micro_batches[0][0].slices[0].sequence = 5; },
       "rank 0, micro-batch 0 names sequence 5"},
      {"whole sequence has no group", [](P& p) { p.micro_batches[0][0].slices[0].sequence = 0; },
       "rank 0, micro-batch 0 holds sequence 0 as a whole, but it has group 1"},
      {"whole sequence once",
       [](P& p) {
         p.micro_batches[2].push_back({{{3, -1, {{0, 3}}}}});
       },
       "rank 3, micro-batch 1 holds sequence 3, which rank 2 holds already"},
      {"whole sequence is whole",
       [](P& p) {
         p.micro_batches[3][1].slices[0].ranges = {{0, 2}};
       },
       "rank 3, micro-batch 1, sequence 3: ranges are [[0, 2]]"},
      {"ranges are merged",
       [](P& p) {
         p.micro_batches[3][1].slices[0].ranges = {{0, 2}, {2, 3}};
       },
       "ranges are [[0, 2], [2, 3]], a whole sequence has [[0, 3]]"},
      {"group exists", [](P& p) { p.micro_batches[2][0].slices[0].group = 3; },
       "rank 2, micro-batch 0, sequence 2 names group 3"},
      {"slice and group agree", [](P& p) { p.micro_batches[2][0].slices[0].sequence = 1; },
       "rank 2, micro-batch 0 holds sequence 1 in group 2, which is for sequence 2"},
      {"only members hold slices",
       [](P& p) { p.micro_batches[2][0].slices.push_back(p.micro_batches[3][0].slices[0]); },
       "rank 2, micro-batch 0 holds sequence 1 in group 0, which rank 2 is no member of"},
      {"a member's slice once", [](P& p) { p.micro_batches[2].push_back(p.micro_batches[2][0]); },
       "rank 2, micro-batch 1 holds sequence 2 a second time"},
      {"zigzag of the member",
       [](P& p) {
         std::swap(p.micro_batches[2][0].slices[0].ranges, p.micro_batches[0][1].slices[0].ranges);
       },
       "rank 0, micro-batch 1, sequence 2: ranges are [[3, 6], [13, 16]], member 0 of 3 has"},
      {"one rank list in a micro-batch",
       [](P& p) {
         // Groups 0 and 1 on the same two ranks in another order.
         p.groups[1].ranks = {3, 1};
         std::swap(p.micro_batches[1][0].slices[1].ranges, p.micro_batches[3][0].slices[1].ranges);
       },
       "rank 1, micro-batch 0 holds slices of sequences 1 and 0 of groups 0 and 1 with different"},
      {"a ring has the same groups on all ranks",
       [](P& p) {
         // Rank 3 takes the ring's groups one after the other.
         p.micro_batches[3].insert(p.micro_batches[3].begin() + 1,
                                   {{p.micro_batches[3][0].slices[1]}});
         p.micro_batches[3][0].slices.pop_back();
       },
       "rank 3, micro-batch 0, sequence 1: groups 0 are together here, but another rank has "
       "groups 0, 1 together"},
      {"a ring has the same groups on all ranks, seen from the other side",
       [](P& p) {
         p.micro_batches[1].insert(p.micro_batches[1].begin() + 1,
                                   {{p.micro_batches[1][0].slices[1]}});
         p.micro_batches[1][0].slices.pop_back();
       },
       "rank 3, micro-batch 0, sequence 0: groups 0, 1 are together here, but another rank has "
       "groups 1 together"},
      {"a ring has one order of groups",
       [](P& p) { std::swap(p.micro_batches[3][0].slices[0], p.micro_batches[3][0].slices[1]); },
       "rank 3, micro-batch 0, sequence 0: groups 1, 0 are together here"},
      {"rings in increasing number",
       [](P& p) { std::swap(p.micro_batches[1][0], p.micro_batches[1][1]); },
       "rank 1, micro-batch 1, sequence 1: the ring of group 0 comes after that of group 2"},
      {"every whole sequence is somewhere", [](P& p) { p.micro_batches[3].pop_back(); },
       "sequence 3 of 3 tokens is on no rank"},
      {"every member takes part", [](P& p) { p.micro_batches[2].clear(); },
       "rank 2 holds no slice of sequence 2, but is a member of its group 2"},
  };
  for (const Breakage& breakage : breakages) {
    StepPlan plan = TwoRingPlan();
    breakage.change(plan);
    const absl::Status status = Validate(plan);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << breakage.rule;
    EXPECT_THAT(std::string(status.message()), HasSubstr(breakage.message)) << breakage.rule;
  }
}

}  // namespace
}  // namespace longspan
