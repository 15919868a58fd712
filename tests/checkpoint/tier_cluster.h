// TierCluster: a cluster of nodes with a tier, as folders on one disk, and jobs on it that save and
// restore ShardedState.
#ifndef LONGSPAN_TESTS_CHECKPOINT_TIER_CLUSTER_H_
#define LONGSPAN_TESTS_CHECKPOINT_TIER_CLUSTER_H_

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "../faults/watched_files.h"
#include "checkpoint/storage.h"
#include "checkpoint/tiers.h"
#include "parallel/transport/rank_threads.h"
#include "scratch_directory.h"

namespace longspan {

// Every node has a folder of its own; there is a shared one.
class TierCluster : public testing::Test {
 protected:
  CheckpointOptions Shared() const;
  std::string NodePath(int node) const;
  // What one path is on every node.
  TierDirectory Tier(int node) const { return {"memory", NodePath(node) + "/tier"}; }

  struct Job {
    std::vector<int> nodes;  // of every rank
    bool partner = false;
    Erasure erasure;
    int keep_last = 1;
    int64_t keep_every = 0;
    std::vector<int64_t> steps;         // saved to the tier
    std::vector<int64_t> shared_steps;  // and to the checkpoint directory
    int holders = 0;                    // ranks that hold any state, the first ones; 0: all
    FileSystem* files = &PosixFileSystem();
    // What the tier's saves warned of, by rank; null: nothing is expected.
    std::vector<std::vector<std::string>>* warnings = nullptr;
  };
  // Saves; returns what the tier's saves ended with, by rank.
  std::vector<std::vector<absl::Status>> Save(const Job& job);

  struct Outcome {
    absl::Status status;
    int64_t step = -1;
    std::string where;
    std::vector<std::string> notes;
    std::vector<int64_t> found;
  };
  // Restores the newest step on the ranks of `nodes`, and compares.
  Outcome Restore(const std::vector<int>& nodes);

  static void ExpectAllOk(const std::vector<std::vector<absl::Status>>& ends, size_t saves);
  std::string StepPath(int node, int64_t step, int generation = 1) const;
  void LoseNode(int node);
  // All nodes and the shared folder.
  void LoseAll();

  ScratchDirectory scratch_;
  int64_t scale_ = 300;
};

RankThreadOptions Patience();

// Flips a bit of the byte at `at`, from the end if that is negative.
void FlipByte(const std::string& path, int64_t at);

// Refuses writes, once, to files whose path has `part` in it, from the `nth` on.
class RefuseOnce : public OperationWatcher {
 public:
  explicit RefuseOnce(std::string part, int nth = 1) : part_(std::move(part)), left_(nth) {}
  Verdict Before(const FileOperation& operation) override;
  bool done() const { return left_ <= 0; }

 private:
  const std::string part_;
  std::atomic<int> left_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_CHECKPOINT_TIER_CLUSTER_H_
