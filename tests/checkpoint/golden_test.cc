// Checkpoints made by every version of the format, committed to the repository, must load for good.
//
// To add one after a change of the format (never replace one):
//   LONGSPAN_GOLDEN=tests/golden/checkpoint-vN BUILD/tests/checkpoint/checkpoint_save_restore_test
//       --gtest_also_run_disabled_tests --gtest_filter=*MakeGolden
#include <gtest/gtest.h>

#include <cstdlib>

#include "checkpoint/checkpoint.h"
#include "parallel/transport/rank_threads.h"
#include "sharded_state.h"

namespace longspan {
namespace {

constexpr int64_t kStep = 7;
constexpr int kRanks = 2;

class GoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, Loads) {
  const std::string directory = std::string(LONGSPAN_TEST_DATA) + "/../golden/" + GetParam();
  std::vector<std::string> skipped;
  const auto found = ListCheckpoints(PosixFileSystem(), directory, &skipped);
  ASSERT_TRUE(found.ok()) << found.status();
  for (const std::string& line : skipped) ADD_FAILURE() << line;
  ASSERT_EQ(found->size(), 1u);
  const CheckpointInfo& info = found->front();
  EXPECT_EQ(info.step, kStep);
  EXPECT_EQ(info.generation, 1);
  EXPECT_EQ(info.ranks, kRanks);
  EXPECT_EQ(info.run_id, "golden");
  EXPECT_EQ(info.metadata, StateMetadata(kStep));
  const absl::Status verified = VerifyCheckpoint(PosixFileSystem(), info);
  EXPECT_TRUE(verified.ok()) << verified;
  for (int ranks = 1; ranks <= 3; ++ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      ShardedState state(rank, ranks, kStep);
      state.Clear();
      const absl::Status status = RestoreRegions(PosixFileSystem(), info, state.regions());
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(state.DifferenceFrom(kStep), "");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, GoldenTest, testing::Values("checkpoint-v1"),
                         [](const auto&) { return "v1"; });

TEST(GoldenMaker, DISABLED_MakeGolden) {
  const char* directory = std::getenv("LONGSPAN_GOLDEN");
  ASSERT_NE(directory, nullptr) << "LONGSPAN_GOLDEN names the directory to make";
  CheckpointOptions options;
  options.directory = directory;
  options.run_id = "golden";
  const absl::Status status = RunRanks(kRanks, [&](Transport& transport, Device&) -> absl::Status {
    auto writer = CheckpointWriter::Open(PosixFileSystem(), options, transport);
    if (!writer.ok()) return writer.status();
    const ShardedState state(transport.rank(), kRanks, kStep);
    return (*writer)->Save(kStep, state.regions(), StateMetadata(kStep)).status();
  });
  ASSERT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace longspan
