// Any flipped bit of any file of a checkpoint is found and the file is named; the loader falls back
// where it can.
#include <gtest/gtest.h>

#include <cstdio>

#include "../checkpoint/sharded_state.h"
#include "checkpoint_scenario.h"

namespace longspan {
namespace {

// Flips one bit in every `stride`-th byte of every file of the newest of two checkpoints.
void FlipBits(size_t stride) {
  SimulatedDisk disk;
  RunAttempt(disk, 2, 2, {1, 2});
  const std::string newest = std::string(kCheckpoints) + "/step-00000002.g0001";
  const auto info = ReadCheckpointInfo(disk, newest);
  ASSERT_TRUE(info.ok()) << info.status();
  ShardedState state(0, 1, 2);
  ASSERT_TRUE(RestoreRegions(disk, *info, state.regions()).ok());
  size_t flips = 0;
  const std::vector<std::string> names = *disk.List(newest);
  for (const std::string& name : names) {
    const std::string path = newest + "/" + name;
    const bool data = name.rfind("rank-", 0) == 0;
    std::string* content = disk.content(path);
    ASSERT_FALSE(content->empty());
    for (size_t byte = flips % stride; byte < content->size(); byte += stride) {
      const char bit = static_cast<char>(1 << (byte / stride % 8));
      (*content)[byte] = static_cast<char>((*content)[byte] ^ bit);
      const absl::Status verified = VerifyCheckpoint(disk, *info);
      ASSERT_FALSE(verified.ok()) << path << " byte " << byte;
      ASSERT_NE(verified.message().find(path), absl::string_view::npos) << verified;
      const absl::Status restored = RestoreRegions(disk, *info, state.regions());
      ASSERT_FALSE(restored.ok()) << path << " byte " << byte;
      ASSERT_NE(restored.message().find(path), absl::string_view::npos) << restored;
      if (!data) {
        std::vector<std::string> skipped;
        const auto found = ListCheckpoints(disk, kCheckpoints, &skipped);
        ASSERT_TRUE(found.ok());
        ASSERT_EQ(found->size(), 1u);
        ASSERT_EQ(found->front().step, 1);
        ASSERT_EQ(skipped.size(), 1u);
        ASSERT_NE(skipped[0].find(path), std::string::npos) << skipped[0];
      }
      (*content)[byte] = static_cast<char>((*content)[byte] ^ bit);
      ++flips;
    }
  }
  std::string problem;
  EXPECT_EQ(LoadNewest(disk, problem), 2) << "all is whole again";
  EXPECT_EQ(problem, "");
  EXPECT_GE(flips, 100u);
  std::printf("%zu flips\n", flips);
}

TEST(BitFlipsTest, Sample) { FlipBits(61); }
TEST(BitFlipsTest, DISABLED_EveryByte) { FlipBits(1); }

}  // namespace
}  // namespace longspan
