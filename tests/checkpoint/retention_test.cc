#include "checkpoint/retention.h"

#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "parallel/transport/rank_threads.h"
#include "scratch_directory.h"
#include "sharded_state.h"

namespace longspan {
namespace {

using Steps = std::vector<std::pair<int64_t, int64_t>>;  // generation, step; newest first

absl::Status SaveSteps(const CheckpointOptions& options, const std::vector<int64_t>& steps) {
  return RunRanks(1, [&](Transport& transport, Device&) -> absl::Status {
    auto writer = CheckpointWriter::Open(PosixFileSystem(), options, transport);
    if (!writer.ok()) return writer.status();
    for (int64_t step : steps) {
      const ShardedState state(0, 1, step);
      auto report = (*writer)->Save(step, state.regions(), "{}");
      if (!report.ok()) return report.status();
      if (!report->warnings.empty()) return absl::UnknownError(report->warnings.front());
    }
    return absl::OkStatus();
  });
}

Steps Committed(const std::string& directory, std::vector<std::string>* skipped = nullptr) {
  const auto found = ListCheckpoints(PosixFileSystem(), directory, skipped);
  EXPECT_TRUE(found.ok()) << found.status();
  Steps steps;
  for (const CheckpointInfo& info : *found) steps.push_back({info.generation, info.step});
  return steps;
}

TEST(RetentionTest, KeepsTheNewestAndTheMultiples) {
  ScratchDirectory scratch;
  CheckpointOptions options;
  options.directory = scratch / "checkpoints";
  options.keep_last = 2;
  options.keep_every = 100;
  ASSERT_TRUE(SaveSteps(options, {50, 100, 150, 200, 250, 300, 350}).ok());
  EXPECT_EQ(Committed(options.directory), (Steps{{1, 350}, {1, 300}, {1, 200}, {1, 100}}));
  EXPECT_EQ(PosixFileSystem().List(options.directory)->size(), 4u + 2u)
      << "generation-0001, latest";
  // A second attempt from step 200 on: of a multiple saved twice, the newest generation stays.
  ASSERT_TRUE(SaveSteps(options, {250, 300, 350, 400}).ok());
  EXPECT_EQ(Committed(options.directory),
            (Steps{{2, 400}, {2, 350}, {2, 300}, {1, 200}, {1, 100}}));
}

TEST(RetentionTest, OneIsTheLeast) {
  ScratchDirectory scratch;
  CheckpointOptions options;
  options.directory = scratch / "checkpoints";
  options.keep_last = 1;
  ASSERT_TRUE(SaveSteps(options, {1, 2, 3}).ok());
  EXPECT_EQ(Committed(options.directory), (Steps{{1, 3}}));
  options.keep_last = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(SaveSteps(options, {4})));
  options.keep_last = 1;
  options.keep_every = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(SaveSteps(options, {4})));
}

TEST(RetentionTest, UnfinishedSavesGoAndDamagedOnesStay) {
  ScratchDirectory scratch;
  CheckpointOptions options;
  options.directory = scratch / "checkpoints";
  options.keep_last = 2;
  FileSystem& files = PosixFileSystem();
  ASSERT_TRUE(SaveSteps(options, {1, 2}).ok());
  // What a crash leaves of a save; and a commit record that somebody damaged.
  const std::string unfinished = options.directory + "/step-00000003.g0001";
  ASSERT_TRUE(files.CreateDirectory(unfinished).ok());
  ASSERT_TRUE(files.Create(unfinished + "/rank-00000.h5").ok());
  ASSERT_TRUE(files.Create(unfinished + "/COMMIT.tmp").ok());
  const std::string damaged = options.directory + "/step-00000002.g0001";
  auto commit = files.OpenForWrite(damaged + "/COMMIT");
  ASSERT_TRUE(commit.ok());
  ASSERT_TRUE((*commit)->WriteAt(5, "?", 1).ok());
  // Somebody's own directory.
  ASSERT_TRUE(files.CreateDirectory(options.directory + "/notes").ok());

  const absl::Status warned = SaveSteps(options, {3});
  EXPECT_NE(warned.message().find("kept: " + damaged), absl::string_view::npos) << warned;
  std::vector<std::string> skipped;
  EXPECT_EQ(Committed(options.directory, &skipped), (Steps{{2, 3}, {1, 1}}))
      << "a damaged step is not one of the newest two";
  ASSERT_EQ(skipped.size(), 1u);
  EXPECT_NE(skipped[0].find(damaged), std::string::npos);
  EXPECT_FALSE(files.Exists(unfinished));
  EXPECT_TRUE(files.Exists(options.directory + "/notes"));
}

TEST(RetentionTest, NothingGoesWhileTheNewOneDoesNotReadBack) {
  ScratchDirectory scratch;
  CheckpointOptions options;
  options.directory = scratch / "checkpoints";
  ASSERT_TRUE(SaveSteps(options, {1, 2, 3}).ok());
  FileSystem& files = PosixFileSystem();
  auto manifest = files.OpenForWrite(options.directory + "/step-00000003.g0001/manifest.json");
  ASSERT_TRUE(manifest.ok());
  ASSERT_TRUE((*manifest)->WriteAt(5, "?", 1).ok());
  options.keep_last = 1;
  const auto problems = ApplyRetention(files, options, {3, 1});
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_NE(problems[1].find("manifest.json"), std::string::npos) << problems[1];
  EXPECT_EQ(Committed(options.directory), (Steps{{1, 2}, {1, 1}}));
}

TEST(RetentionTest, AFencedAttemptDeletesNothing) {
  ScratchDirectory scratch;
  CheckpointOptions options;
  options.directory = scratch / "checkpoints";
  ASSERT_TRUE(SaveSteps(options, {1, 2}).ok());
  ASSERT_TRUE(PosixFileSystem().Create(options.directory + "/generation-0002").ok());
  options.keep_last = 1;
  EXPECT_EQ(ApplyRetention(PosixFileSystem(), options, {2, 1}).size(), 1u);
  EXPECT_EQ(Committed(options.directory), (Steps{{1, 2}, {1, 1}}));
}

}  // namespace
}  // namespace longspan
