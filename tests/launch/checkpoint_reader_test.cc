// What commands read of a checkpoint: its newest step from wherever the files are, computed from
// parity where they are nowhere; a step directory alone where one is named; with any number of
// ranks, which learn alike how it ended.
#include "launch/checkpoint_reader.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <mutex>

#include "../checkpoint/sharded_state.h"
#include "../checkpoint/tier_cluster.h"
#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

class CheckpointReaderTest : public TierCluster {
 protected:
  // A run's folder, whose memory tier is that of node 0: where the command runs.
  std::string RunFolder() {
    std::filesystem::create_directories(scratch_ / "run");
    std::filesystem::create_directory_symlink(Shared().directory, scratch_ / "run/checkpoints");
    std::ofstream(Shared().directory + "/tiers.json")
        << R"({"key": "0123456789abcdef", "tiers": [{"name": "memory", "directory": ")"
        << Tier(0).directory << "\"}]}\n";
    return scratch_ / "run";
  }
  // Reads all tensors, twice, on rank 0 of `ranks`; how that ended on each.
  std::vector<absl::Status> ReadAll(const std::string& path, int ranks, int64_t step) {
    std::vector<absl::Status> ends(static_cast<size_t>(ranks));
    const absl::Status ran = RunRanks(
        ranks,
        [&](Transport& transport, Device&) -> absl::Status {
          absl::Status& end = ends[transport.rank()];
          auto reader = CheckpointReader::Open(path, transport);
          end = reader.status();
          if (!reader.ok()) return absl::OkStatus();
          EXPECT_EQ((*reader)->info().step, step);
          EXPECT_EQ((*reader)->tensors().size(), 10u);
          end = LeadReads({reader->get()}, transport, [&]() -> absl::Status {
            EXPECT_EQ(transport.rank(), 0);
            for (int pass = 0; pass < 2; ++pass) {
              ShardedState state(0, 1, 0, scale_);
              state.Clear();
              absl::Status status = (*reader)->Read(state.regions());
              if (!status.ok()) return status;
              EXPECT_EQ(state.DifferenceFrom(step), "");
            }
            return absl::OkStatus();
          });
          return absl::OkStatus();
        },
        Patience());
    EXPECT_TRUE(ran.ok()) << ran;
    return ends;
  }
};

TEST_F(CheckpointReaderTest, WhatIsNowhereIsComputed) {
  ExpectAllOk(Save({.nodes = {0, 1}, .erasure = {1, 1}, .steps = {1, 2}, .shared_steps = {1}}), 2);
  LoseNode(1);
  const std::string run = RunFolder();
  for (const std::string& path : {run, StepPath(0, 2), StepPath(0, 2) + "/"}) {
    for (const int ranks : {1, 3}) {
      testing::internal::CaptureStderr();
      for (const absl::Status& end : ReadAll(path, ranks, 2)) EXPECT_TRUE(end.ok()) << end;
      const std::string said = testing::internal::GetCapturedStderr();
      const std::string note = "rank-00001.h5 was computed from parity";
      EXPECT_NE(said.find(note), std::string::npos) << said;
      EXPECT_EQ(said.find(note), said.rfind(note)) << "said twice: " << said;
    }
  }
}

TEST_F(CheckpointReaderTest, TooLittleIsLeft) {
  ExpectAllOk(Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .steps = {2}, .shared_steps = {1}}), 1);
  const std::string run = RunFolder();
  for (const std::string& path : {run, StepPath(0, 2)}) {
    for (const absl::Status& end : ReadAll(path, 2, 2)) {
      EXPECT_TRUE(absl::IsDataLoss(end)) << end;
      for (const char* text : {"rank-00001.h5 is not in any place", "under mpirun, a rank on each",
                               "name an older checkpoint's directory"}) {
        EXPECT_NE(end.message().find(text), std::string::npos) << end;
      }
    }
  }
}

TEST_F(CheckpointReaderTest, ADirectoryThatIsNamedIsReadAlone) {
  ExpectAllOk(Save({.nodes = {0, 0}, .steps = {1, 2}, .shared_steps = {2}}), 2);
  const std::string run = RunFolder();
  const std::string shared = Shared().directory + "/step-00000002.g0001";
  for (const absl::Status& end : ReadAll(shared, 2, 2)) EXPECT_TRUE(end.ok()) << end;
  FlipByte(shared + "/rank-00001.h5", -100);
  for (const absl::Status& end : ReadAll(shared, 2, 2)) {
    EXPECT_TRUE(absl::IsDataLoss(end)) << end;
    EXPECT_NE(end.message().find("rank-00001.h5 is nowhere whole"), std::string::npos) << end;
  }
  // The run has it in memory as well.
  for (const absl::Status& end : ReadAll(run, 2, 2)) EXPECT_TRUE(end.ok()) << end;
  // By another name, as somebody may have kept it.
  std::filesystem::rename(StepPath(0, 2), scratch_ / "kept");
  for (const absl::Status& end : ReadAll(scratch_ / "kept", 2, 2)) EXPECT_TRUE(end.ok()) << end;
  for (const absl::Status& end : ReadAll(scratch_ / "none", 2, 2)) {
    EXPECT_TRUE(absl::IsNotFound(end)) << end;
  }
}

TEST_F(CheckpointReaderTest, AllRanksLearnHowItEnded) {
  ExpectAllOk(Save({.nodes = {0}, .steps = {1}}), 1);
  std::mutex mutex;
  int heard = 0;
  const absl::Status ran = RunRanks(
      3,
      [&](Transport& transport, Device&) -> absl::Status {
        auto first = CheckpointReader::Open(StepPath(0, 1), transport);
        if (!first.ok()) return first.status();
        auto second = CheckpointReader::Open(StepPath(0, 1), transport);
        if (!second.ok()) return second.status();
        const absl::Status end =
            LeadReads({first->get(), second->get()}, transport, [&]() -> absl::Status {
              // One that fails, on all ranks, and one that does not.
              float value = 0;
              EXPECT_TRUE(absl::IsNotFound(
                  (*second)->Read({{"/parameters", "no such", DType::kF32, {1}, 0, 1, &value}})));
              ShardedState state(0, 1, 0, scale_);
              state.Clear();
              EXPECT_TRUE((*first)->Read(state.regions()).ok());
              EXPECT_EQ(state.DifferenceFrom(1), "");
              return absl::ResourceExhaustedError("the disk is full");
            });
        EXPECT_EQ(end, absl::ResourceExhaustedError("the disk is full"));
        const std::lock_guard lock(mutex);
        ++heard;
        return absl::OkStatus();
      },
      Patience());
  EXPECT_TRUE(ran.ok()) << ran;
  EXPECT_EQ(heard, 3);
}

}  // namespace
}  // namespace longspan
