// Files of retired steps are written again, unless somebody else has them.
#include "checkpoint/spare_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <set>

#include "checkpoint/checkpoint.h"
#include "checkpoint/lazy_writer.h"
#include "checkpoint/storage.h"
#include "parallel/transport/rank_threads.h"
#include "scratch_directory.h"
#include "sharded_state.h"

namespace longspan {
namespace {

ino_t Inode(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_ino;
}

// A run of one rank that keeps one step.
class SpareFilesTest : public testing::Test {
 protected:
  SpareFilesTest() {
    options_.directory = scratch_ / "checkpoints";
    options_.keep_last = 1;
    auto storage = OpenStorage();
    EXPECT_TRUE(storage.ok()) << storage.status();
    storage_ = *std::move(storage);
  }

  std::string FileOf(int64_t step, int64_t generation = 1) const {
    return options_.directory + "/step-0000000" + std::to_string(step) + ".g000" +
           std::to_string(generation) + "/rank-00000.h5";
  }
  std::string Spare(int64_t generation = 1) const {
    return options_.directory + "/spare.g000" + std::to_string(generation) + "/rank-00000.h5";
  }

  // Saves steps, calling `after` behind each; `scale` is the size of the state.
  void Save(const std::vector<int64_t>& steps, const std::function<void(int64_t)>& after,
            int64_t scale = 1) {
    const absl::Status status = RunRanks(1, [&](Transport& transport, Device&) -> absl::Status {
      auto writer = CheckpointWriter::Open(*storage_, options_, transport);
      if (!writer.ok()) return writer.status();
      for (const int64_t step : steps) {
        const ShardedState state(0, 1, step, scale);
        auto report = (*writer)->Save(step, state.regions(), "{}");
        if (!report.ok()) return report.status();
        if (!report->warnings.empty()) return absl::UnknownError(report->warnings.front());
        after(step);
      }
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
  }

  void ExpectNewestIs(int64_t step, int64_t scale = 1) {
    const auto found = ListCheckpoints(*storage_, options_.directory);
    ASSERT_TRUE(found.ok() && found->size() == 1) << found.status();
    EXPECT_EQ(found->front().step, step);
    EXPECT_TRUE(VerifyCheckpoint(*storage_, found->front()).ok());
    ShardedState state(0, 1, step, scale);
    state.Clear();
    const absl::Status restored = RestoreRegions(*storage_, found->front(), state.regions());
    EXPECT_TRUE(restored.ok()) << restored;
    EXPECT_EQ(state.DifferenceFrom(step), "");
  }

  ScratchDirectory scratch_;
  CheckpointOptions options_;
  std::unique_ptr<FileSystem> storage_;
};

TEST_F(SpareFilesTest, Names) {
  EXPECT_EQ(SpareDirectoryName(3), "spare.g0003");
  EXPECT_EQ(ParseSpareDirectoryName("spare.g0003"), 3);
  EXPECT_EQ(ParseSpareDirectoryName("spare.g3"), std::nullopt);
  EXPECT_EQ(ParseSpareDirectoryName("spare"), std::nullopt);
  EXPECT_EQ(ParseSpareDirectoryName("step-00000003.g0001"), std::nullopt);
}

TEST_F(SpareFilesTest, TwoFilesDoForARunThatKeepsOneStep) {
  std::set<ino_t> inodes;
  Save({1, 2, 3, 4, 5, 6}, [&](int64_t step) {
    inodes.insert(Inode(FileOf(step)));
    EXPECT_EQ(std::filesystem::exists(Spare()), step > 1);
    ExpectNewestIs(step);
  });
  EXPECT_EQ(inodes.size(), 2u);
  EXPECT_FALSE(std::filesystem::exists(options_.directory + "/spare.g0001"))
      << "they go when the writer does";
  ExpectNewestIs(6);
}

TEST_F(SpareFilesTest, LazySavesOnEveryRankUseThem) {
  std::set<ino_t> inodes;
  constexpr int kRanks = 3;
  const absl::Status status = RunRanks(kRanks, [&](Transport& transport, Device& device) {
    ShardedState state(transport.rank(), kRanks, 0);
    auto writer = LazyCheckpointWriter::Open(*storage_, options_, {}, state.regions(),
                                             device.memory(), transport);
    if (!writer.ok()) return writer.status();
    for (int64_t step = 1; step <= 5; ++step) {
      SnapshotRequest request;
      request.step = step;
      (*writer)->Snapshot(std::move(request));
      (*writer)->Drain();
      for (const FinishedSave& save : (*writer)->TakeFinished()) {
        if (!save.status.ok()) return save.status;
      }
      if (absl::Status met = transport.Barrier(); !met.ok()) return met;
      if (transport.rank() == 0) {
        const std::string directory = std::filesystem::path(FileOf(step)).parent_path();
        for (const std::string name : {"/rank-00000.h5", "/rank-00001.h5", "/rank-00002.h5"})
          inodes.insert(Inode(directory + name));
      }
      if (absl::Status met = transport.Barrier(); !met.ok()) return met;
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(inodes.size(), 2u * kRanks);
  const auto found = ListCheckpoints(*storage_, options_.directory);
  ASSERT_TRUE(found.ok() && found->size() == 1) << found.status();
  EXPECT_TRUE(VerifyCheckpoint(*storage_, found->front()).ok());
}

TEST_F(SpareFilesTest, AFileThatSomebodyReadsIsLeftToThem) {
  int reader = -1;
  std::string before;
  ino_t read = 0;
  Save({1, 2, 3}, [&](int64_t step) {
    if (step == 1) {
      before = *storage_->ReadAll(FileOf(1));
      reader = open(FileOf(1).c_str(), O_RDONLY);
      read = Inode(FileOf(1));
    }
    if (step == 3) {
      EXPECT_NE(Inode(FileOf(3)), read);
    }
    ExpectNewestIs(step);
  });
  ASSERT_GE(reader, 0);
  std::string after(before.size(), '\0');
  EXPECT_EQ(pread(reader, after.data(), after.size(), 0), static_cast<ssize_t>(after.size()));
  EXPECT_TRUE(after == before);
  close(reader);
}

TEST_F(SpareFilesTest, AFileWithAnotherNameKeepsItsBytes) {
  std::string before;
  Save({1, 2, 3}, [&](int64_t step) {
    if (step == 1) {
      before = *storage_->ReadAll(FileOf(1));
      std::filesystem::create_hard_link(FileOf(1), scratch_ / "kept.h5");
    }
    ExpectNewestIs(step);
  });
  EXPECT_TRUE(*storage_->ReadAll(scratch_ / "kept.h5") == before);
}

TEST_F(SpareFilesTest, AFileOfAnotherSizeIsNotUsed) {
  const auto nothing = [](int64_t) {};
  Save({1}, nothing, /*scale=*/3);
  // The second step retires a larger file, which the third must not end up in.
  Save({2, 3}, [&](int64_t step) { ExpectNewestIs(step); });
}

TEST_F(SpareFilesTest, WhatAnAttemptLeavesIsRemovedUnused) {
  // As a process leaves it that was killed.
  ASSERT_NO_FATAL_FAILURE(Save({1}, [](int64_t) {}));
  const std::string left = options_.directory + "/spare.g0001";
  std::filesystem::create_directory(left);
  std::filesystem::copy(FileOf(1), left + "/rank-00000.h5");
  const ino_t inode = Inode(Spare());
  Save({2}, [&](int64_t) {
    EXPECT_NE(Inode(FileOf(2, 2)), inode);
    EXPECT_FALSE(std::filesystem::exists(left));
    ExpectNewestIs(2);
  });
}

}  // namespace
}  // namespace longspan
