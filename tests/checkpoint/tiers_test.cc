// Tiers: steps in a directory of every node, with copies on another node; what is lost with a node,
// or damaged, comes from elsewhere, bit by bit, on any number of ranks; nothing is taken for a
// checkpoint that is not one.
#include "checkpoint/tiers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "../faults/watched_files.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/storage.h"
#include "parallel/transport/rank_threads.h"
#include "scratch_directory.h"
#include "sharded_state.h"

namespace longspan {
namespace {

SnapshotRequest RequestOf(int64_t step) {
  return {step, [step] { return StateMetadata(step); }, Event(), true};
}

RankThreadOptions Patience() {
  RankThreadOptions options;
  options.timeout = absl::Seconds(100);
  return options;
}

// A cluster of nodes, each with a folder of its own, and a shared folder.
class TiersTest : public testing::Test {
 protected:
  CheckpointOptions Shared() const {
    CheckpointOptions options;
    options.directory = scratch_ / "shared";
    options.run_id = "tiers";
    options.keep_last = 100;
    return options;
  }
  std::string NodePath(int node) const { return scratch_ / absl::StrCat("node", node); }
  // What one path is on every node.
  TierDirectory Tier(int node) const { return {"memory", NodePath(node) + "/tier"}; }

  struct Job {
    std::vector<int> nodes;  // of every rank
    bool partner = false;
    int keep_last = 1;
    std::vector<int64_t> steps;         // saved to the tier
    std::vector<int64_t> shared_steps;  // and to the checkpoint directory
    FileSystem* files = &PosixFileSystem();
  };

  // Saves; returns what the tier's saves ended with, by rank.
  std::vector<std::vector<absl::Status>> Save(const Job& job) {
    const auto ranks = static_cast<int>(job.nodes.size());
    for (const int node : job.nodes) std::filesystem::create_directories(NodePath(node));
    std::vector<std::vector<absl::Status>> ends(ranks);
    const absl::Status ran = RunRanks(
        ranks,
        [&](Transport& transport, Device& device) -> absl::Status {
          const int rank = transport.rank();
          ShardedState state(rank, ranks, 0, scale_);
          LazyOptions lazy;
          lazy.timeout = absl::Seconds(20);
          auto shared = LazyCheckpointWriter::Open(PosixFileSystem(), Shared(), lazy,
                                                   state.regions(), device.memory(), transport);
          if (!shared.ok()) return shared.status();
          TierOptions options;
          options.tier = Tier(job.nodes[rank]);
          options.keep_last = job.keep_last;
          options.partner = job.partner;
          options.nodes = job.nodes;
          auto tier = OpenTier(*job.files, Shared(), (*shared)->generation(), options, lazy,
                               state.regions(), device.memory(), transport);
          if (!tier.ok()) return tier.status();
          std::vector<int64_t> steps = job.steps;
          steps.insert(steps.end(), job.shared_steps.begin(), job.shared_steps.end());
          std::sort(steps.begin(), steps.end());
          steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
          for (const int64_t step : steps) {
            const ShardedState now(rank, ranks, step, scale_);
            for (size_t i = 0; i < state.regions().size(); ++i) {
              const StateRegion& to = state.regions()[i];
              const auto bytes = (to.flat_end - to.flat_begin) * SizeOf(to.dtype);
              if (bytes > 0) std::memcpy(to.data, now.regions()[i].data, bytes);
            }
            for (const bool shares : {false, true}) {
              const std::vector<int64_t>& wanted = shares ? job.shared_steps : job.steps;
              if (!std::count(wanted.begin(), wanted.end(), step)) continue;
              LazyCheckpointWriter& writer = shares ? **shared : **tier;
              for (const Event& gate : writer.Snapshot(RequestOf(step))) {
                if (absl::Status status = gate.Wait(); !status.ok()) return status;
              }
            }
          }
          (*shared)->Drain();
          (*tier)->Drain();
          for (const FinishedSave& save : (*shared)->TakeFinished()) {
            if (!save.status.ok()) return save.status;
          }
          for (const FinishedSave& save : (*tier)->TakeFinished()) {
            ends[rank].push_back(save.status);
            for (const std::string& line : save.report.warnings) ADD_FAILURE() << line;
          }
          return absl::OkStatus();
        },
        Patience());
    EXPECT_TRUE(ran.ok()) << ran;
    return ends;
  }

  struct Outcome {
    absl::Status status;
    int64_t step = -1;
    std::string where;
    std::vector<std::string> notes;
    std::vector<int64_t> found;
  };
  // Restores the newest step on the ranks of `nodes`, and compares.
  Outcome Restore(const std::vector<int>& nodes) {
    const auto ranks = static_cast<int>(nodes.size());
    Outcome outcome;
    std::mutex mutex;
    const absl::Status ran = RunRanks(
        ranks,
        [&](Transport& transport, Device&) -> absl::Status {
          const int rank = transport.rank();
          auto found = FindCheckpoints(PosixFileSystem(), Shared().directory, {Tier(nodes[rank])},
                                       nodes, transport);
          if (!found.ok()) return found.status();
          if (found->empty()) return absl::NotFoundError("nothing found");
          absl::Status failure;
          std::vector<std::string> notes;
          auto restore = TieredRestore::Open(PosixFileSystem(), found->front(), nodes, transport);
          failure = restore.status();
          if (restore.ok()) {
            EXPECT_EQ((*restore)->info().metadata, StateMetadata(found->front().step));
            ShardedState state(rank, ranks, 0, scale_);
            state.Clear();
            failure = (*restore)->Restore(state.regions(), &notes);
            if (failure.ok()) {
              EXPECT_EQ(state.DifferenceFrom(found->front().step), "");
            }
          }
          const std::lock_guard lock(mutex);
          outcome.status = failure;
          outcome.step = found->front().step;
          outcome.where = found->front().where();
          for (const std::string& line : notes) outcome.notes.push_back(line);
          if (rank == 0) {
            for (const FoundCheckpoint& each : *found) outcome.found.push_back(each.step);
          }
          return absl::OkStatus();
        },
        Patience());
    if (!ran.ok()) outcome.status = ran;
    return outcome;
  }

  static void ExpectAllOk(const std::vector<std::vector<absl::Status>>& ends, size_t saves) {
    for (const auto& rank : ends) {
      EXPECT_EQ(rank.size(), saves);
      for (const absl::Status& status : rank) EXPECT_TRUE(status.ok()) << status;
    }
  }
  std::string StepPath(int node, int64_t step, int generation = 1) const {
    return absl::StrCat(Tier(node).directory, "/step-0000000", step, ".g000", generation);
  }
  void LoseNode(int node) { std::filesystem::remove_all(NodePath(node)); }

  ScratchDirectory scratch_;
  int64_t scale_ = 300;
};

// In the raw data.
void FlipByte(const std::string& path) {
  const auto at = static_cast<int64_t>(std::filesystem::file_size(path)) - 1000;
  ASSERT_GT(at, int64_t{16} << 20) << "several pieces are wanted";
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  ASSERT_TRUE(file.good()) << path;
  file.seekg(at);
  const auto byte = static_cast<char>(file.get() ^ 1);
  file.seekp(at);
  file.put(byte);
}

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
      for (int node = 0; node < count; ++node) LoseNode(node);
      std::filesystem::remove_all(scratch_ / "shared");
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
  FlipByte(StepPath(1, 2) + name);
  Outcome outcome = Restore({0, 1});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  ASSERT_EQ(outcome.notes.size(), 1u);
  EXPECT_NE(outcome.notes[0].find(StepPath(1, 2) + name), std::string::npos) << outcome.notes[0];
  EXPECT_NE(outcome.notes[0].find("are damaged"), std::string::npos) << outcome.notes[0];
  // That one too: the checkpoint directory's.
  FlipByte(StepPath(0, 2) + name);
  outcome = Restore({0, 1});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.step, 2);
  EXPECT_GE(outcome.notes.size(), 2u);
  // And that one: no way, and it is said.
  FlipByte(Shared().directory + "/step-00000002.g0001" + name);
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

// Refuses writes, once, to files whose path has `part` in it.
class RefuseOnce : public OperationWatcher {
 public:
  explicit RefuseOnce(std::string part) : part_(std::move(part)) {}
  Verdict Before(const FileOperation& operation) override {
    const bool hit = std::string(operation.kind) == "write" &&
                     operation.path.find(part_) != std::string::npos && !done_.exchange(true);
    if (hit) return {absl::ResourceExhaustedError("write: no space left on device")};
    return {};
  }

 private:
  const std::string part_;
  std::atomic<bool> done_ = false;
};

TEST_F(TiersTest, AFailedCopyFailsTheSaveAndTheNextOneWorks) {
  // Of the file itself, of a copy at the partner.
  for (const std::string part :
       {"node0/tier/step-00000002.g0001/rank-00000", "node1/tier/step-00000002.g0001/rank-00000"}) {
    LoseNode(0);
    LoseNode(1);
    std::filesystem::remove_all(scratch_ / "shared");
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

TEST_F(TiersTest, RemovedAtTheEnd) {
  ExpectAllOk(Save({.nodes = {0}, .keep_last = 3, .steps = {1, 2, 3}}), 3);
  EXPECT_TRUE(std::filesystem::exists(StepPath(0, 1)));
  EXPECT_TRUE(RemoveTier(PosixFileSystem(), Tier(0)).ok());
  EXPECT_FALSE(std::filesystem::exists(Tier(0).directory));
  EXPECT_TRUE(RemoveTier(PosixFileSystem(), Tier(0)).ok());
}

}  // namespace
}  // namespace longspan
