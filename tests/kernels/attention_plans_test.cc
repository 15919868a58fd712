// How attention is cut into runs of cuDNN plans, and that each graph has a plan, on a machine
// without a GPU: for an H100 that is only described. It shows that the graphs are supported and
// what workspace they take, not that their numbers are right.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/attention_batches.h"
#include "kernels/cuda/cudnn_attention.h"

namespace longspan::cuda {
namespace {

using Pass = AttentionGraphShape::Pass;
constexpr int64_t kMiB = 1 << 20;

TEST(CudnnVersionTest, RefusesThoseThatGiveWrongAnswers) {
  for (const int64_t version : {91000, 91001, 91400})
    EXPECT_NE(WhyCudnnIsRefused(version).find("wrong answers"), std::string::npos) << version;
  for (const int64_t version : {91002, 91100, 91300, 91401, 91500, 92500})
    EXPECT_EQ(WhyCudnnIsRefused(version).find("wrong answers"), std::string::npos) << version;
  EXPECT_NE(WhyCudnnIsRefused(90700), "");
  EXPECT_NE(WhyCudnnIsRefused(100000), "");
  EXPECT_EQ(WhyCudnnIsRefused(91900), "");
  EXPECT_EQ(CudnnVersionText(91900), "9.19.0");
}

// Every (query, key) that spans or batches let see each other; (query, -1) for a query of a span
// without keys. In order.
using Pairs = std::vector<std::pair<int64_t, int64_t>>;

Pairs Sorted(Pairs pairs) {
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

Pairs PairsOf(const std::vector<AttentionSpan>& spans) {
  Pairs pairs;
  for (const AttentionSpan& span : spans) {
    for (int64_t i = 0; i < span.query_count; ++i) {
      const int64_t shift = span.key_count - span.query_count;
      bool any = false;
      for (int64_t j = 0; j < span.key_count; ++j) {
        if (span.causal && j > i + shift) continue;
        if (span.window > 0 && span.distance + i - j >= span.window) continue;
        pairs.emplace_back(span.query_begin + i, span.key_begin + j);
        any = true;
      }
      if (!any) pairs.emplace_back(span.query_begin + i, -1);
    }
  }
  return Sorted(std::move(pairs));
}

Pairs PairsOf(const AttentionBatches& cut) {
  Pairs pairs;
  for (const AttentionBatch& batch : cut.batches) {
    for (const AttentionDocument& d : batch.documents) {
      for (int64_t i = 0; i < d.query_count; ++i) {
        // As the masks of the graphs.
        const int64_t aligned = i + d.aligned_keys - d.query_count;
        for (int64_t j = 0; j < d.key_count; ++j) {
          if (batch.causal && aligned < j) continue;
          if (batch.window > 0 && j + batch.window <= aligned) continue;
          pairs.emplace_back(d.query_begin + i, d.key_begin + j);
        }
      }
    }
  }
  for (const AttentionDocument& d : cut.without_keys) {
    for (int64_t i = 0; i < d.query_count; ++i) pairs.emplace_back(d.query_begin + i, -1);
  }
  return Sorted(std::move(pairs));
}

// Documents of a packed micro-batch, full blocks, more queries than keys, none of either, windows.
std::vector<AttentionSpan> MixedSpans() {
  return {{0, 7, 0, 7, true},
          {7, 300, 7, 300, true},
          {307, 5, 307, 40, true},
          {312, 9, 350, 4, true},
          {321, 6, 360, 11, false},
          {327, 3, 380, 0, false},
          {330, 2, 380, 0, true},
          {340, 0, 400, 6, true},
          {350, 50, 410, 50, true, 8, 0},
          {400, 1, 460, 300, true},
          {401, 20, 760, 30, true, 4, 10},
          {421, 30, 800, 40, false, 20, 44},
          {460, 300, 850, 200, false, 240, 200},
          {760, 9, 1050, 9, false, 5, 30}};
}

TEST(AttentionBatchesTest, EveryQuerySeesItsKeysOnce) {
  for (const int64_t score_bytes : {int64_t{0}, int64_t{1}, int64_t{1} << 30}) {
    const AttentionBatches cut = CutIntoBatches(MixedSpans(), 4, score_bytes);
    EXPECT_EQ(PairsOf(cut), PairsOf(MixedSpans())) << score_bytes;
  }
}

TEST(AttentionBatchesTest, BatchesArePowersOfTwoWithoutEmptyDocuments) {
  const AttentionBatches cut = CutIntoBatches(MixedSpans(), 4, 0);
  for (const AttentionBatch& batch : cut.batches) {
    EXPECT_EQ(batch.documents.size() & (batch.documents.size() - 1), 0u);
    for (const AttentionDocument& document : batch.documents) {
      EXPECT_GT(document.query_count, 0);
      EXPECT_GE(document.key_count, batch.causal && batch.window == 0 ? document.query_count : 1);
    }
  }
}

// What a plan is run with, of every kind of span and of lengths around those that give NaN.
TEST(AttentionBatchesTest, NoDocumentHasALengthThatGivesNan) {
  const std::vector<int64_t> lengths = {1, 32, 64, 65, 96, 128, 192, 224};
  int64_t padded = 0;
  for (const int64_t queries : lengths) {
    for (const int64_t keys : lengths) {
      const std::vector<AttentionSpan> spans = {{3, queries, 5, keys, true},
                                                {300, queries, 300, keys, false},
                                                {600, queries, 600, keys, true, 70, keys - queries},
                                                {900, queries, 900, keys, false, 150, keys + 20},
                                                {1200, queries, 1200, keys, false, 400, keys}};
      for (const int64_t score_bytes : {int64_t{0}, int64_t{1}, int64_t{1} << 17}) {
        const AttentionBatches cut = CutIntoBatches(spans, 1, score_bytes);
        ASSERT_EQ(PairsOf(cut), PairsOf(spans)) << queries << " x " << keys;
        for (const AttentionBatch& batch : cut.batches) {
          const AttentionGraphShape shape =
              Bucketed(ShapeOf(batch, Pass::kBackward, 1, 1, 64, score_bytes > 0));
          ASSERT_EQ(shape.pads_keys, batch.pads_keys);
          ASSERT_EQ(shape.query_rows % 128, 0);
          ASSERT_EQ(shape.key_rows % 128, 0);
          for (const AttentionDocument& document : batch.documents) {
            const int64_t key_rows = batch.KeyRows(document);
            ASSERT_NE(document.query_count % 128, 64);
            ASSERT_NE(key_rows % 128, 64);
            ASSERT_GT(document.query_count, 0);
            ASSERT_GT(document.key_count, 0);
            ASSERT_LE(document.query_count, shape.query_rows);
            ASSERT_GE(key_rows, document.key_count);
            ASSERT_LE(key_rows, shape.key_rows);
            padded += key_rows - document.key_count;
          }
        }
      }
    }
  }
  EXPECT_GT(padded, 0);
}

// Padding costs a copy: documents of other lengths go without.
TEST(AttentionBatchesTest, OnlyKeysWhoseNumberGivesNanArePadded) {
  const AttentionBatches cut = CutIntoBatches(
      {{0, 64, 0, 64, false}, {64, 65, 64, 65, false}, {129, 3, 129, 192, false}}, 1, 0);
  for (const AttentionBatch& batch : cut.batches) {
    for (const AttentionDocument& document : batch.documents)
      EXPECT_EQ(batch.pads_keys, document.key_count % 128 == 64) << document.key_count;
  }
}

TEST(AttentionBatchesTest, KeepsToTheBudgetOfADeterministicPass) {
  constexpr int64_t kBudget = 64 * kMiB;
  const AttentionBatches cut = CutIntoBatches({{0, 5000, 0, 9000, true}}, 16, kBudget);
  EXPECT_GT(cut.batches.size(), 1u);
  for (const AttentionBatch& batch : cut.batches) {
    const AttentionGraphShape bucket = Bucketed(ShapeOf(batch, Pass::kBackward, 16, 16, 64, true));
    EXPECT_LE(16 * bucket.query_rows * bucket.key_rows * 2, kBudget) << bucket.ToString();
  }
}

TEST(AttentionBatchesTest, BucketsAreFewAndLargeEnough) {
  std::set<int64_t> buckets;
  for (int64_t rows = 1; rows <= 131072; ++rows) {
    AttentionGraphShape shape;
    shape.query_rows = shape.key_rows = rows;
    const int64_t bucket = Bucketed(shape).query_rows;
    ASSERT_GE(bucket, rows);
    ASSERT_EQ(bucket % 128, 0);
    ASSERT_LE(bucket, std::max<int64_t>(256, rows * 3 / 2));
    buckets.insert(bucket);
  }
  EXPECT_LE(buckets.size(), 20u);
}

class AttentionPlansTest : public testing::Test {
 protected:
  void SetUp() override {
    // The first library of this name wins, here also on a machine that has a driver.
    ASSERT_NE(dlopen(LONGSPAN_STAND_IN_DRIVER, RTLD_NOW | RTLD_GLOBAL), nullptr) << dlerror();
    // cuDNN may lie beside the toolkit and not where the loader looks.
    if (dlopen("libcudnn.so.9", RTLD_NOW) == nullptr)
      (void)dlopen(LONGSPAN_CUDA_LIBRARIES "/libcudnn.so.9", RTLD_NOW);
    const absl::StatusOr<const CudnnLibrary*> library = CudnnLibrary::Load();
    if (!library.ok()) GTEST_SKIP() << library.status();
    library_ = *library;
  }

  static AttentionGraphShape Shape() {
    AttentionGraphShape shape;
    shape.heads = shape.kv_heads = 12;
    shape.head_dim = 64;
    shape.documents = 1;
    shape.query_rows = shape.key_rows = 1024;
    return shape;
  }

  absl::StatusOr<AttentionPlan> Plan(const AttentionGraphShape& shape) const {
    return PlanAttention(*library_, target_, shape);
  }

  void ExpectPlan(const AttentionGraphShape& shape, int operations, int64_t most_workspace) const {
    const absl::StatusOr<AttentionPlan> plan = Plan(shape);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->plan.operations(), operations) << shape.ToString();
    EXPECT_LE(plan->plan.workspace_bytes(), most_workspace) << shape.ToString();
    std::set<int64_t> ids = {plan->ids.q,
                             plan->ids.k,
                             plan->ids.v,
                             plan->ids.out,
                             plan->ids.stats,
                             plan->ids.query_offsets,
                             plan->ids.key_offsets,
                             plan->ids.stats_offsets,
                             plan->ids.query_counts,
                             plan->ids.key_counts,
                             plan->ids.scale,
                             plan->ids.minus_infinity};
    EXPECT_EQ(ids.size(), 12u);
    EXPECT_FALSE(ids.contains(0));
    EXPECT_EQ(plan->ids.window != 0, shape.window != 0);
    EXPECT_EQ(plan->ids.visible_keys != 0, shape.pads_keys);
  }

  // The plans of the forward pass and of both backward ones.
  void ExpectPlansOfPasses(AttentionGraphShape shape, int mask_operations) const {
    ExpectPlan(shape, 16 + mask_operations, kMiB);
    shape.pass = Pass::kBackward;
    ExpectPlan(shape, 23 + mask_operations, kMiB);
    shape.deterministic = true;
    // 2 bytes a score: what Pass::kBackward is cut for.
    ExpectPlan(shape, 23 + mask_operations,
               shape.documents * shape.heads * shape.query_rows * shape.key_rows * 2 + kMiB);
  }

  const CudnnLibrary* library_ = nullptr;
  const CudnnTarget target_{nullptr, DescribedH100()};
};

// Masks, grouped heads and determinism: what a graph's operations depend on.
TEST_F(AttentionPlansTest, EveryKindOfGraphHasAPlan) {
  for (const int64_t kv_heads : {8, 32}) {
    for (const auto& [causal, window, mask_operations] :
         {std::tuple{true, 0, 6}, std::tuple{false, 0, 0}, std::tuple{true, 1, 13}}) {
      AttentionGraphShape shape = Shape();
      shape.heads = 32;
      shape.kv_heads = kv_heads;
      shape.head_dim = 128;
      shape.documents = 8;
      shape.query_rows = 2048;
      shape.key_rows = 8192;
      shape.causal = causal;
      shape.window = window;
      ExpectPlansOfPasses(shape, mask_operations);
    }
  }
}

// Keys that are padded: the mask of what is outside of a document has a count of its own.
TEST_F(AttentionPlansTest, PaddedKeysHavePlans) {
  for (const auto& [causal, window, mask_operations] :
       {std::tuple{true, 0, 6}, std::tuple{false, 0, 0}, std::tuple{true, 1, 13}}) {
    AttentionGraphShape shape = Shape();
    shape.kv_heads = 4;
    shape.documents = 8;
    shape.causal = causal;
    shape.window = window;
    shape.pads_keys = true;
    ExpectPlansOfPasses(shape, mask_operations);
  }
}

// Dense graphs of other extents are wrong up to 9.15.0, and 64 behind whole tiles gives NaN.
TEST_F(AttentionPlansTest, GraphsOfOtherExtentsAreNotBuilt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const int64_t rows : {64, 192, 200, 1000}) {
    AttentionGraphShape queries = Shape(), keys = Shape();
    queries.query_rows = rows;
    keys.key_rows = rows;
    EXPECT_DEATH((void)Plan(queries), "multiples of 128") << rows;
    EXPECT_DEATH((void)Plan(keys), "multiples of 128") << rows;
  }
}

TEST_F(AttentionPlansTest, EveryHeadSizeHasAPlan) {
  for (const int64_t head_dim : {32, 48, 64, 96, 128, 256}) {
    AttentionGraphShape shape = Shape();
    shape.head_dim = head_dim;
    ExpectPlan(shape, 22, kMiB);
    shape.pass = Pass::kBackward;
    ExpectPlan(shape, 29, kMiB);
  }
}

// The workspace must not grow with the longest document: that of other graphs is 197 GiB here.
TEST_F(AttentionPlansTest, WorkspaceDoesNotGrowWithLength) {
  for (const int64_t documents : {1, 64, 1024}) {
    for (const int64_t rows : {128, 131072, 1048576}) {
      AttentionGraphShape shape = Shape();
      shape.kv_heads = 4;
      shape.documents = documents;
      shape.query_rows = shape.key_rows = rows;
      ExpectPlan(shape, 22, kMiB);
      shape.pass = Pass::kBackward;
      ExpectPlan(shape, 29, kMiB);
    }
  }
}

TEST_F(AttentionPlansTest, PlannerKeepsPlansByBucket) {
  AttentionPlanner planner(*library_, target_);
  AttentionGraphShape shape = Shape();
  shape.query_rows = shape.key_rows = 900;
  std::shared_ptr<const AttentionPlan> plans[2];
  // Both at once: one makes the plan, the other waits for it.
  std::thread other([&] { plans[0] = planner.PlanFor(shape).value_or(nullptr); });
  plans[1] = planner.PlanFor(shape).value_or(nullptr);
  other.join();
  ASSERT_NE(plans[0], nullptr);
  EXPECT_EQ(plans[0], plans[1]);
  shape.query_rows = 1000;
  EXPECT_EQ(planner.PlanFor(shape).value_or(nullptr), plans[0]);
  EXPECT_EQ(planner.plans(), 1);
  shape.window = 17;
  ASSERT_TRUE(planner.PlanFor(shape).ok());
  shape.window = 400;
  ASSERT_TRUE(planner.PlanFor(shape).ok());
  EXPECT_EQ(planner.plans(), 2);
}

TEST_F(AttentionPlansTest, RefusalNamesTheGraph) {
  AttentionGraphShape shape = Shape();
  shape.head_dim = 7;
  const absl::Status refusal = Plan(shape).status();
  ASSERT_FALSE(refusal.ok());
  EXPECT_NE(std::string(refusal.message()).find("12 heads (12 of keys) of 7"), std::string::npos)
      << refusal;
}

}  // namespace
}  // namespace longspan::cuda
