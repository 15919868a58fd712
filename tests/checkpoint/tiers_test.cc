// Tiers: steps in a directory of every node, with copies on another node; what is lost with a node,
// or damaged, comes from elsewhere, bit by bit, on any number of ranks; nothing is taken for a
// checkpoint that is not one.
#include "checkpoint/tiers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_join.h"
#include "tier_cluster.h"

namespace longspan {
namespace {

using TiersTest = TierCluster;

TEST_F(TiersTest, TheNewestStepComesFromMemory) {
  ExpectAllOk(Save({.nodes = {0, 0}, .steps = {1, 2, 3, 4}, .shared_steps = {2}}), 4);
  // One is kept, the one before is gone.
  EXPECT_FALSE(std::filesystem::exists(StepPath(0, 3)));
  const Outcome outcome = Restore({0, 0});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.step, 4);
  EXPECT_EQ(outcome.where, "memory of 1 node");
  EXPECT_TRUE(outcome.notes.empty());
  EXPECT_EQ(outcome.found, (std::vector<int64_t>{4, 2}));
  // A node that is lost takes its steps with it.
  LoseNode(0);
  EXPECT_EQ(Restore({0, 0}).step, 2);
}

TEST_F(TiersTest, AnyRanksOnAnyNodes) {
  ExpectAllOk(Save({.nodes = {0, 1, 0, 2}, .steps = {1, 2}}), 2);
  for (const std::vector<int>& nodes :
       {std::vector<int>{0, 1, 2}, {0, 1, 0, 2}, {0, 1, 2, 2, 2, 1, 0}, {2, 1, 0}}) {
    const Outcome outcome = Restore(nodes);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(outcome.step, 2);
  }
  // Fewer nodes than hold it: its files are not to be had.
  const Outcome outcome = Restore({0, 1});
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss) << outcome.status;
  EXPECT_NE(outcome.status.message().find("rank-00003.h5"), std::string::npos) << outcome.status;
}

TEST_F(TiersTest, APartnerReplacesALostNode) {
  for (const std::vector<int>& nodes :
       {std::vector<int>{0, 1}, {0, 0, 1}, {0, 1, 1}, {0, 1, 2}, {0, 0, 1, 1}}) {
    const int count = *std::max_element(nodes.begin(), nodes.end()) + 1;
    for (int lost = 0; lost < count; ++lost) {
      LoseAll();
      ExpectAllOk(Save({.nodes = nodes, .partner = true, .steps = {1, 2, 3}}), 3);
      LoseNode(lost);
      std::filesystem::create_directories(NodePath(lost));  // another machine in its place
      const Outcome outcome = Restore(nodes);
      EXPECT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_EQ(outcome.step, 3);
      // And on the ranks that are left.
      std::vector<int> left;
      for (const int node : nodes) {
        if (node != lost) left.push_back(node);
      }
      EXPECT_TRUE(Restore(left).status.ok());
    }
  }
}

TEST_F(TiersTest, DamageIsLeftForAnotherCopy) {
  scale_ = 20000;  // several pieces a file
  ExpectAllOk(Save({.nodes = {0, 1}, .partner = true, .steps = {1, 2}, .shared_steps = {2}}), 2);
  // The file's own copy: the partner's is taken.
  const std::string name = "/rank-00001.h5";
  ASSERT_GT(std::filesystem::file_size(StepPath(1, 2) + name), size_t{16} << 20);
  FlipByte(StepPath(1, 2) + name, -1000);
  Outcome outcome = Restore({0, 1});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  ASSERT_EQ(outcome.notes.size(), 1u);
  EXPECT_NE(outcome.notes[0].find(StepPath(1, 2) + name), std::string::npos) << outcome.notes[0];
  EXPECT_NE(outcome.notes[0].find("are damaged"), std::string::npos) << outcome.notes[0];
  // That one too: the checkpoint directory's.
  FlipByte(StepPath(0, 2) + name, -1000);
  outcome = Restore({0, 1});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.step, 2);
  EXPECT_GE(outcome.notes.size(), 2u);
  // And that one: no way, and it is said.
  FlipByte(Shared().directory + "/step-00000002.g0001" + name, -1000);
  outcome = Restore({0, 1});
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss) << outcome.status;
  EXPECT_NE(outcome.status.message().find("rank-00001.h5 is nowhere whole"), std::string::npos)
      << outcome.status;
}

TEST_F(TiersTest, WithoutACommitRecordAStepDoesNotCount) {
  ExpectAllOk(Save({.nodes = {0, 1}, .keep_last = 2, .steps = {1, 2}}), 2);
  std::filesystem::remove(StepPath(0, 2) + "/COMMIT");
  // One node has it.
  Outcome outcome = Restore({0, 1});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.step, 2);
  std::filesystem::remove(StepPath(1, 2) + "/COMMIT");
  outcome = Restore({0, 1});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.step, 1);
}

TEST_F(TiersTest, ANewAttemptComesBeforeAnOlderOnesSteps) {
  ExpectAllOk(Save({.nodes = {0, 1}, .steps = {5, 6}}), 2);
  ExpectAllOk(Save({.nodes = {0, 1}, .steps = {3}}), 1);
  const Outcome outcome = Restore({0, 1});
  EXPECT_EQ(outcome.step, 3);
  EXPECT_FALSE(std::filesystem::exists(StepPath(0, 6, 1)));
  EXPECT_TRUE(std::filesystem::exists(StepPath(1, 3, 2)));
}

TEST_F(TiersTest, AFailedCopyFailsTheSaveAndTheNextOneWorks) {
  // Of the file itself, of a copy at the partner.
  for (const std::string part :
       {"node0/tier/step-00000002.g0001/rank-00000", "node1/tier/step-00000002.g0001/rank-00000"}) {
    LoseAll();
    RefuseOnce watcher(part);
    WatchedFiles files(PosixFileSystem(), watcher);
    const auto ends = Save({.nodes = {0, 1}, .partner = true, .steps = {1, 2, 3}, .files = &files});
    for (const auto& rank : ends) {
      ASSERT_EQ(rank.size(), 3u);
      EXPECT_TRUE(rank[0].ok()) << rank[0];
      EXPECT_FALSE(rank[1].ok());
      EXPECT_NE(rank[1].message().find("memory checkpoint of step 2 not saved"), std::string::npos)
          << rank[1];
      EXPECT_NE(rank[1].message().find("no space left"), std::string::npos) << rank[1];
      EXPECT_TRUE(rank[2].ok()) << rank[2];
    }
    EXPECT_FALSE(std::filesystem::exists(StepPath(0, 2)));
    const Outcome outcome = Restore({0, 1});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(outcome.step, 3);
  }
}

// Refuses, once, to remove the file `path`.
class KeepOnce : public OperationWatcher {
 public:
  explicit KeepOnce(std::string path) : path_(std::move(path)) {}
  Verdict Before(const FileOperation& operation) override {
    if (operation.kind != std::string("remove") || operation.path != path_ ||
        done_.exchange(true)) {
      return {};
    }
    return {absl::UnknownError(operation.path + ": input/output error"), 0};
  }

 private:
  const std::string path_;
  std::atomic<bool> done_ = false;
};

TEST_F(TiersTest, ARemovalThatFailsOnOneNodeIsToldOnAllRanks) {
  KeepOnce watcher(StepPath(1, 1) + "/COMMIT");
  WatchedFiles files(PosixFileSystem(), watcher);
  std::vector<std::vector<std::string>> warnings(4);
  Job job;
  job.nodes = {0, 0, 1, 1};
  job.steps = {1, 2, 3};
  job.files = &files;
  job.warnings = &warnings;
  ExpectAllOk(Save(job), 3);
  for (const std::vector<std::string>& lines : warnings) {
    ASSERT_EQ(lines.size(), 1u) << absl::StrJoin(lines, "\n");
    EXPECT_NE(lines[0].find("old checkpoint " + StepPath(1, 1) + " is not removed"),
              std::string::npos)
        << lines[0];
  }
  EXPECT_FALSE(std::filesystem::exists(StepPath(1, 1))) << "the next removal takes it";
  EXPECT_FALSE(std::filesystem::exists(StepPath(0, 2)));
  EXPECT_EQ(Restore(job.nodes).step, 3);
}

TEST_F(TiersTest, DirectoriesAreTheRunsOwn) {
  const std::string shared = scratch_ / "run/checkpoints";
  std::filesystem::create_directories(shared);
  std::vector<TierDirectory> first, second;
  for (std::vector<TierDirectory>* claimed : {&first, &second}) {
    const absl::Status ran = RunRanks(
        2,
        [&](Transport& transport, Device&) -> absl::Status {
          auto tiers = ClaimTiers(PosixFileSystem(), shared,
                                  {{"memory", "/dev/shm"}, {"local", "/scratch"}}, transport);
          if (!tiers.ok()) return tiers.status();
          if (transport.rank() == 1) *claimed = *tiers;
          return absl::OkStatus();
        },
        Patience());
    ASSERT_TRUE(ran.ok()) << ran;
  }
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0].directory.find("/dev/shm/longspan-"), 0u) << first[0].directory;
  EXPECT_EQ(first[1].name, "local");
  // The same again, and as they were written; another one for a run made anew in the same place.
  EXPECT_EQ(second[0].directory, first[0].directory);
  const auto read = ReadTiers(PosixFileSystem(), shared);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[1].directory, first[1].directory);
  std::filesystem::remove_all(shared);
  std::filesystem::create_directories(shared);
  EXPECT_TRUE(ReadTiers(PosixFileSystem(), shared)->empty());
  const absl::Status ran = RunRanks(1, [&](Transport& transport, Device&) -> absl::Status {
    auto tiers = ClaimTiers(PosixFileSystem(), shared, {{"memory", "/dev/shm"}}, transport);
    if (!tiers.ok()) return tiers.status();
    EXPECT_NE((*tiers)[0].directory, first[0].directory);
    return absl::OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran;
}

TEST_F(TiersTest, MultiplesStayUntilTheEnd) {
  ExpectAllOk(Save({.nodes = {0, 1}, .keep_every = 2, .steps = {1, 2, 3, 4, 5}}), 5);
  for (const int node : {0, 1}) {
    for (const int64_t step : {1, 2, 3, 4, 5})
      EXPECT_EQ(std::filesystem::exists(StepPath(node, step)), step % 2 == 0 || step == 5) << step;
    EXPECT_TRUE(RemoveTier(PosixFileSystem(), Tier(node)).ok());
    EXPECT_FALSE(std::filesystem::exists(Tier(node).directory));
  }
}

TEST_F(TiersTest, RemovedAtTheEnd) {
  ExpectAllOk(Save({.nodes = {0}, .keep_last = 3, .steps = {1, 2, 3}}), 3);
  EXPECT_TRUE(std::filesystem::exists(StepPath(0, 1)));
  EXPECT_TRUE(RemoveTier(PosixFileSystem(), Tier(0)).ok());
  EXPECT_FALSE(std::filesystem::exists(Tier(0).directory));
  EXPECT_TRUE(RemoveTier(PosixFileSystem(), Tier(0)).ok());
}

}  // namespace
}  // namespace longspan
