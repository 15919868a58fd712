#include "parallel/parameter_layout.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "test_plans.h"

namespace longspan {
namespace {

// Tensors of odd sizes, some in families of two or three.
std::vector<ParameterSpec> RandomSpecs(Random& random) {
  std::vector<ParameterSpec> specs;
  const int64_t groups = random.Between(1, 30);
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t family = random.Between(0, 1) == 0 ? 1 : random.Between(2, 3);
    for (int64_t i = 0; i < family; ++i) {
      ParameterSpec spec;
      spec.name = std::to_string(specs.size());
      spec.shape = {random.Between(1, 40)};
      if (random.Between(0, 1) == 1) spec.shape.push_back(random.Between(1, 40));
      spec.decay = spec.shape.size() > 1;
      if (family > 1) spec.fuse = std::to_string(group);
      specs.push_back(spec);
    }
  }
  return specs;
}

bool SameFamily(const ParameterSpec& a, const ParameterSpec& b) {
  return !a.fuse.empty() && a.fuse == b.fuse;
}

TEST(ParameterLayoutTest, ShardsPartitionTheTensors) {
  Random random(7);
  for (int trial = 0; trial < 60; ++trial) {
    const std::vector<ParameterSpec> specs = RandomSpecs(random);
    for (int ranks = 1; ranks <= 8; ++ranks) {
      const ParameterLayout layout(specs, ranks, random.Between(1, 3000));
      // Owner of each element of the arena, and how often each element of a rank's shard is used.
      std::vector<int> owners(layout.arena_elements(), -1);
      int64_t owned = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        std::vector<bool> tensor_seen(specs.size(), false);
        int64_t arena_end = 0, shard_end = 0;
        for (const ShardRange& range : layout.Shard(rank)) {
          ASSERT_LT(range.flat_begin, range.flat_end);
          EXPECT_FALSE(tensor_seen[range.tensor]) << "at most one range of any tensor";
          tensor_seen[range.tensor] = true;
          const int64_t elements = range.flat_end - range.flat_begin;
          EXPECT_EQ(range.arena_begin, layout.offset(range.tensor) + range.flat_begin);
          EXPECT_LE(range.flat_end, specs[range.tensor].elements());
          // In arena order, which is shard order too.
          EXPECT_GE(range.arena_begin, arena_end);
          EXPECT_GE(range.shard_begin, shard_end);
          arena_end = range.arena_begin + elements;
          shard_end = range.shard_begin + elements;
          EXPECT_LE(shard_end, layout.shard_elements());
          // The same place, seen from the bucket.
          const ParameterLayout::Bucket& bucket = layout.buckets()[range.bucket];
          const int64_t part = layout.shard_arena_begin(range.bucket, rank);
          EXPECT_EQ(range.shard_begin - bucket.shard_begin, range.arena_begin - part);
          EXPECT_GE(range.arena_begin, part);
          EXPECT_LE(arena_end, part + layout.shard_bucket_elements(range.bucket));
          for (int64_t i = range.arena_begin; i < arena_end; ++i) {
            ASSERT_EQ(owners[i], -1);
            owners[i] = rank;
          }
          owned += elements;
        }
      }
      EXPECT_EQ(owned, layout.tensor_elements());
      for (size_t tensor = 0; tensor < specs.size(); ++tensor) {
        for (int64_t i = 0; i < specs[tensor].elements(); ++i) {
          ASSERT_NE(owners[layout.offset(tensor) + i], -1);
        }
      }
    }
  }
}

TEST(ParameterLayoutTest, BucketsAreWholeTensorsInOrderAndAligned) {
  Random random(8);
  for (int trial = 0; trial < 100; ++trial) {
    const std::vector<ParameterSpec> specs = RandomSpecs(random);
    const int ranks = static_cast<int>(random.Between(1, 8));
    const int64_t target = random.Between(1, 5000);
    const ParameterLayout layout(specs, ranks, target);
    int64_t arena = 0, tensor = 0, shard = 0, elements = 0;
    for (size_t b = 0; b < layout.buckets().size(); ++b) {
      const ParameterLayout::Bucket& bucket = layout.buckets()[b];
      EXPECT_EQ(bucket.begin, arena);
      EXPECT_EQ(bucket.first_tensor, tensor);
      EXPECT_EQ(bucket.shard_begin, shard);
      EXPECT_EQ(bucket.elements % (ranks * 64), 0);
      EXPECT_EQ(layout.shard_bucket_elements(b) * ranks, bucket.elements);
      int64_t end = bucket.begin;
      for (; tensor < bucket.last_tensor; ++tensor) {
        const bool fused =
            tensor > bucket.first_tensor && SameFamily(specs[tensor - 1], specs[tensor]);
        if (fused) {
          EXPECT_EQ(layout.offset(tensor), end) << "families are contiguous";
        } else {
          EXPECT_EQ(layout.offset(tensor) % 16, 0);
          EXPECT_LT(layout.offset(tensor) - end, 16);
          // Closed as soon as it was large enough.
          if (tensor > bucket.first_tensor) {
            EXPECT_LT(end - bucket.begin, target);
          }
        }
        EXPECT_GE(layout.offset(tensor), end);
        end = layout.offset(tensor) + specs[tensor].elements();
        elements += specs[tensor].elements();
      }
      EXPECT_LE(end, bucket.begin + bucket.elements);
      EXPECT_LT(bucket.begin + bucket.elements - end, ranks * 64) << "no more padding than needed";
      if (tensor < static_cast<int64_t>(specs.size())) {
        EXPECT_FALSE(SameFamily(specs[tensor - 1], specs[tensor])) << "a family in two buckets";
        EXPECT_GE(end - bucket.begin, target);
      }
      arena += bucket.elements;
      shard += bucket.elements / ranks;
    }
    EXPECT_EQ(tensor, static_cast<int64_t>(specs.size()));
    EXPECT_EQ(layout.arena_elements(), arena);
    EXPECT_EQ(layout.shard_elements(), shard);
    EXPECT_EQ(layout.tensor_elements(), elements);
  }
}

TEST(ParameterLayoutTest, AKnownCase) {
  const ParameterLayout layout({{.name = "norm", .shape = {10}},
                                {.name = "q", .shape = {6, 10}, .fuse = "qkv"},
                                {.name = "k", .shape = {3, 10}, .fuse = "qkv"},
                                {.name = "head", .shape = {100}}},
                               2, 20);
  EXPECT_EQ(layout.offset(0), 0);
  EXPECT_EQ(layout.offset(1), 16);
  EXPECT_EQ(layout.offset(2), 76);
  EXPECT_EQ(layout.offset(3), 128);
  ASSERT_EQ(layout.buckets().size(), 2u);
  EXPECT_EQ(layout.buckets()[0].elements, 128);
  EXPECT_EQ(layout.buckets()[1].begin, 128);
  EXPECT_EQ(layout.arena_elements(), 256);
  EXPECT_EQ(layout.tensor_elements(), 200);
  EXPECT_EQ(layout.Find("k"), 2);
  EXPECT_EQ(layout.Find("v"), -1);
  const std::vector<ShardRange> shard = layout.Shard(1);
  ASSERT_EQ(shard.size(), 3u);
  EXPECT_EQ(shard[0].tensor, 1);
  EXPECT_EQ(shard[0].flat_begin, 48);
  EXPECT_EQ(shard[0].flat_end, 60);
  EXPECT_EQ(shard[0].arena_begin, 64);
  EXPECT_EQ(shard[0].shard_begin, 0);
  EXPECT_EQ(shard[1].tensor, 2);
  EXPECT_EQ(shard[1].shard_begin, 12);
  EXPECT_EQ(shard[2].tensor, 3);
  EXPECT_EQ(shard[2].flat_begin, 64);
  EXPECT_EQ(shard[2].flat_end, 100);
  EXPECT_EQ(shard[2].arena_begin, 192);
  EXPECT_EQ(shard[2].shard_begin, 64);
}

TEST(ParameterLayoutTest, NoTensorsNoBuckets) {
  const ParameterLayout layout({}, 3);
  EXPECT_TRUE(layout.buckets().empty());
  EXPECT_EQ(layout.arena_elements(), 0);
  EXPECT_TRUE(layout.Shard(2).empty());
}

TEST(ParameterLayoutDeathTest, NamesAreUnique) {
  EXPECT_DEATH(ParameterLayout({{.name = "a", .shape = {1}}, {.name = "a", .shape = {2}}}, 1),
               "unique");
}

}  // namespace
}  // namespace longspan
