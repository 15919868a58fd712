// RunSavingJob: what the fault tests take for a training run. It resumes from the newest checkpoint
// that reads back, wherever its files are, as the trainer does, and saves after every step; the
// state of a step is a fixed function of it (tests/checkpoint/sharded_state.h), so anybody can tell
// whether it is whole.
#ifndef LONGSPAN_TESTS_FAULTS_SAVING_JOB_H_
#define LONGSPAN_TESTS_FAULTS_SAVING_JOB_H_

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/tiers.h"
#include "checkpoint_scenario.h"
#include "kernels/device/memory.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct SavingJob {
  std::string directory;
  SaveMode mode = SaveMode::kLazy;
  int64_t saves = 1;
  int keep_last = 1;
  int in_flight = 2;                                // lazy
  absl::Duration vote_timeout = absl::Seconds(60);  // lazy
  int64_t pool_bytes = 0;                           // lazy; 0: enough for a whole snapshot
  int64_t scale = 1;                                // of the state
  int64_t every = 1;                                // steps between saves to `directory`; 0: none

  // Tiers, of lazy jobs. A node is a folder beside `directory`, which is made by others.
  struct Tier {
    std::string name;
    int64_t every = 1;
    int keep_last = 1;
    bool partner = false;
    Erasure erasure;
  };
  std::vector<Tier> tiers;
  std::vector<int> nodes;  // of every rank; empty: one node
};

// What a node has of the job: ".../node-2".
std::string NodeFolder(const SavingJob& job, int node);
// Its tiers' directories, in their order.
std::vector<TierDirectory> TiersOfNode(const SavingJob& job, int node);

struct JobStart {
  int64_t step = 0;         // resumed from; 0: fresh
  int ranks = 0;            // that had saved it
  int64_t older_taken = 0;  // committed checkpoints that did not read back, newer than this one
  bool from_tier = false;   // it is in no other place
  std::vector<std::string> notes;  // TieredRestore::Restore's, of this rank
};

struct JobCallbacks {
  std::function<void(const JobStart&)> started;
  // Of each save, in order: how it ended. `tier` is empty for the checkpoint directory.
  std::function<void(const std::string& tier, int64_t step, const absl::Status&, const SaveReport&)>
      saved;
};

// One rank's part; the others run theirs. A save that fails does not end the job, unless a peer is
// gone.
absl::Status RunSavingJob(const SavingJob& job, FileSystem& files, MemoryTable& memory,
                          Transport& transport, const JobCallbacks& callbacks);

// Checks all that is committed in `directory`, but for the step directories `damaged`, read back on
// one rank and on `ranks`, and returns the newest step, 0 if there is none. `problem` gets what is
// wrong, if anything is.
int64_t CheckCheckpoints(FileSystem& files, const std::string& directory, int ranks, int64_t scale,
                         std::string& problem, const std::set<std::string>& damaged = {});
// Step directories that are no committed checkpoints: what was not finished, or not quite removed.
std::vector<std::string> LeftoverSteps(FileSystem& files, const std::string& directory);

// The steps that have files in the job's tiers on `nodes` nodes and can be restored, by a rank of
// each; `problem` gets what is restored wrong. Those that are not whole are left out.
std::set<int64_t> CheckTiers(FileSystem& files, const SavingJob& job, int nodes,
                             std::string& problem);
// Steps of a tier that the node with this folder has a commit record of.
std::set<int64_t> CommittedOnNode(FileSystem& files, const std::string& directory);
// As LeftoverSteps, of a tier's directory on a node.
std::vector<std::string> LeftoverOnNode(FileSystem& files, const std::string& directory);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_SAVING_JOB_H_
