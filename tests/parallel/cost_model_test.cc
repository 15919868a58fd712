#include "parallel/cost_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "parallel/integer_cost.h"
namespace longspan {
namespace {

TEST(CostModelTest, AWindowCountsThePairsInsideIt) {
  for (const int64_t window : {1, 2, 5, 10, 11, 100}) {
    for (int64_t begin = 0; begin <= 10; ++begin) {
      int64_t pairs = 0;
      for (int64_t end = begin; end <= 10; ++end) {
        EXPECT_TRUE(PairsOf(begin, end, window) == pairs) << begin << " " << end << " " << window;
        pairs += std::min(end + 1, window);
      }
    }
  }
  // Members of a ring of 4 receive 2 * 4 tokens of 1000 at most, instead of 750.
  EXPECT_EQ(RingTokens(1000, 4, 0), 1000);
  EXPECT_EQ(RingTokens(1000, 4, 5) * 3 / 4, 7);  // rounded down
  EXPECT_EQ(RingTokens(6, 4, 5), 6);
  CostModel cost{.attention_seconds_per_pair = 1, .ring_seconds_per_token = 100};
  cost.attention_window = 5;
  EXPECT_DOUBLE_EQ(cost.SequenceSeconds(100, 1), 15 + 95 * 5);
}

// The example of the public format.
const CostModel kExample = {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3};

TEST(CostModelTest, OneRankPaysForEveryTokenAndPair) {
  EXPECT_DOUBLE_EQ(kExample.SequenceSeconds(1000, 1), 1.055e-4 * 1000 + 8.0e-9 * 500500);
  EXPECT_DOUBLE_EQ(kExample.SequenceSeconds(1, 1), 1.055e-4 + 8.0e-9);
}

TEST(CostModelTest, TheRingHidesBehindLongAttention) {
  // 2M tokens on 256 ranks: attention of a rank 68 s, its transfers 47 s plus the last block.
  const double s = 2097152, pairs = s * (s + 1) / 2;
  EXPECT_NEAR(kExample.SequenceSeconds(2097152, 256),
              1.055e-4 * s / 256 + 8.0e-9 * pairs / 256 + 1.92e-3 * 255, 1e-9);
}

TEST(CostModelTest, ShortSequencesWaitForTheRing) {
  const double s = 16384, pairs = s * (s + 1) / 2;
  const double expected =
      1.055e-4 * s / 8 + (2.23e-5 * s * 7 / 8 + 8.0e-9 * pairs / 64) + 1.92e-3 * 7;
  EXPECT_NEAR(kExample.SequenceSeconds(16384, 8), expected, 1e-12);
  // So more ranks may take longer.
  EXPECT_LT(kExample.SequenceSeconds(16384, 64), kExample.SequenceSeconds(16384, 512));
}

TEST(CostModelTest, WidthsOfHeadParallelismDivideTheHeads) {
  EXPECT_EQ((HeadParallelism{12, 1, 8}).Widths(), (std::vector<int>{1, 2, 3, 4, 6}));
  EXPECT_EQ((HeadParallelism{1, 8, 8}).Widths(), (std::vector<int>{1}));
  EXPECT_EQ((HeadParallelism{8, 4, 1}).Widths(), (std::vector<int>{1}));
}

TEST(CostModelTest, SplitHeadsShortenTheRingAndPayForTheirExchange) {
  CostModel cost = kExample;
  cost.heads = {.kv_heads = 4, .queries_per_kv = 8, .most = 4, .widest = true};
  // 16 members, heads by 4: rings of 4.
  const double s = 16384, p = s * (s + 1) / 2 * 8.0e-9 / 16, ring = 2.23e-5 * s / 16;
  const double by_4 =
      1.055e-4 * s / 16 + ring * (1 + 40.0 / 6) * 3 / 4 + (ring * 3 + p / 4) + 1.92e-3 * (3 + 2);
  EXPECT_NEAR(cost.SequenceSeconds(16384, 16), by_4, 1e-12);
  // 6 members can split them by 2 at most.
  const double few_pairs = s * (s + 1) / 2 * 8.0e-9 / 6, few = 2.23e-5 * s / 6;
  EXPECT_NEAR(cost.SequenceSeconds(16384, 6),
              1.055e-4 * s / 6 + few * (1 + 40.0 / 6) / 2 +
                  std::max(few_pairs, few * 2 + few_pairs / 3) + 1.92e-3 * (2 + 2),
              1e-12);
  // Where it has the choice: the least of all.
  const double alone = kExample.SequenceSeconds(16384, 16);
  cost.heads.most = 2;
  const double by_2 = cost.SequenceSeconds(16384, 16);
  cost.heads = {.kv_heads = 4, .queries_per_kv = 8, .most = 4};
  EXPECT_EQ(cost.SequenceSeconds(16384, 16), std::min({alone, by_2, by_4}));
  EXPECT_LT(by_4, alone);
  // The planners' whole numbers say the same, but for their rounding.
  const IntegerCostModel integer = *IntegerCostModel::Create(cost, 64);
  for (const int members : {1, 2, 3, 4, 6, 8, 16, 40, 64}) {
    for (const int64_t length : {1, 1000, 16384, 2097152}) {
      const double seconds = cost.SequenceSeconds(length, members);
      EXPECT_NEAR(IntegerCostModel::Seconds(integer.Sequence(length, members)) / seconds, 1, 1e-6);
    }
  }
  // Windows leave heads whole.
  cost.attention_window = 100;
  CostModel ring_alone = kExample;
  ring_alone.attention_window = 100;
  EXPECT_EQ(cost.SequenceSeconds(16384, 16), ring_alone.SequenceSeconds(16384, 16));
  EXPECT_EQ(IntegerCostModel::Create(cost, 1)->head_widths(), (std::vector<int>{1}));
  cost.heads.kv_heads = 0;
  EXPECT_FALSE(IntegerCostModel::Create(cost, 1).ok());
}

TEST(CostModelTest, AnalyticCountsOperationsAndBytes) {
  // 10 layers, width 100, KV width 50, 1000 parameters, 1e6 FLOP/s, 1e5 bytes/s.
  const CostModel cost = AnalyticCostModel(1000, 10, 100, 50, 1e6, 1e5);
  EXPECT_DOUBLE_EQ(cost.linear_seconds_per_token, 6e-3);
  EXPECT_DOUBLE_EQ(cost.attention_seconds_per_pair, 12e-3);
  // K and V of 50 values of 4 bytes in 10 layers: 4000 bytes, twice, and their gradients as much.
  EXPECT_DOUBLE_EQ(cost.ring_seconds_per_token, 3 * 4000 / 1e5);
  // The 32-layer case study: 96 times 20 us and 8 ms.
  const CostModel seven = AnalyticCostModel(1, 32, 1, 1, 1, 1);
  EXPECT_DOUBLE_EQ(seven.ring_step_seconds, 1.92e-3);
  EXPECT_DOUBLE_EQ(seven.micro_batch_seconds, 8e-3);
}

}  // namespace
}  // namespace longspan
