// Tiers: checkpoints in places that are nearer than the checkpoint directory, and may be lost with
// a node: host memory that outlives the process (a directory on tmpfs, such as /dev/shm), a disk of
// the node. Every node has a directory of its own, with the files of its ranks, on request those of
// ranks of another node too, and the step's manifest and commit record.
//
// Each tier is a LazyCheckpointWriter of its own: its interval, its retention, its pool. Tiers have
// the generation of the checkpoint directory, so that the newest step is known over all of them.
// FORMAT.md describes the files.
#ifndef LONGSPAN_CHECKPOINT_TIERS_H_
#define LONGSPAN_CHECKPOINT_TIERS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/lazy_writer.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct TierDirectory {
  std::string name;       // "memory", "local": one word
  std::string directory;  // the same path on every node, another directory on each
};

// Node of every rank: 0, 1, ... in the order of their lowest ranks. Collective; ranks on hosts of
// one name are on one node.
absl::StatusOr<std::vector<int>> NodesByHost(Transport& transport);

// Makes the directories of this run's tiers known: below each of `bases` (such as /dev/shm) one
// with a name that no other run has, however it is called. Kept in tiers.json of
// `checkpoint_directory`, which exists, so that later attempts, and `longspan checkpoint list`,
// find them; those that were claimed before stay known. The directories of `bases`, in their order.
// Collective.
absl::StatusOr<std::vector<TierDirectory>> ClaimTiers(FileSystem& files,
                                                      const std::string& checkpoint_directory,
                                                      const std::vector<TierDirectory>& bases,
                                                      Transport& transport);

// What tiers.json says; none if there is no such file. Not collective.
absl::StatusOr<std::vector<TierDirectory>> ReadTiers(FileSystem& files,
                                                     const std::string& checkpoint_directory);

// A committed step of a tier, of which this node holds some files.
struct TierListing {
  std::string tier;
  CheckpointInfo info;  // `directory` on this node; ranks and bytes of all nodes
  int files_here = 0;
  int parity_here = 0;  // files of parity
};
// What the tiers of tiers.json hold on this node, newest first. Not collective.
absl::StatusOr<std::vector<TierListing>> ListTiers(FileSystem& files,
                                                   const std::string& checkpoint_directory);

// Parity instead of copies: of `data` + `parity` nodes any `parity` may be lost, and every file
// costs parity / data of itself in addition. erasure_groups.h says how nodes are divided.
struct Erasure {
  int data = 0, parity = 0;
  bool off() const { return parity == 0; }
};
// "4+1". InvalidArgument for anything else, with a message that says what is wanted, not what came.
absl::StatusOr<Erasure> ParseErasure(const std::string& text);

struct TierOptions {
  TierDirectory tier;
  int keep_last = 1;       // newest steps kept on every node; at least 1
  int64_t keep_every = 0;  // and those that are multiples of this; 0: none
  bool partner = false;    // every file is kept by a rank of the next node as well
  // Or its group keeps parity of it. Needs more than `parity` nodes; with fewer than data + parity,
  // or ranks that the nodes have in different numbers, it costs more.
  Erasure erasure;
  std::vector<int> nodes;  // of every rank, as NodesByHost gives them
};
// What a tier holds of a step, in sizes of the step: 1, 2 with a partner, 1.25 with "4+1".
double CopiesKept(const TierOptions& options);

// As LazyCheckpointWriter::Open, with the generation that a writer of the checkpoint directory has
// claimed. `options.directory`, keep_last and keep_every are not used: the tier has its own. Makes
// the tier's directory on every node. Collective.
absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> OpenTier(
    FileSystem& files, const CheckpointOptions& options, int64_t generation, TierOptions tier,
    LazyOptions lazy, std::vector<StateRegion> regions, MemoryTable& memory, Transport& transport);

// Removes the tier's directory on this node, with all that is in it. By one rank of each node.
absl::Status RemoveTier(FileSystem& files, const TierDirectory& tier);

// A step that was found, in one place or in several.
struct FoundCheckpoint {
  int64_t step = 0, generation = 0;
  std::string directory;  // its step directory in the checkpoint directory; empty: not there
  // Step directories of nodes.
  struct Copy {
    std::string tier, directory;
    int node = 0;
    bool committed = false;  // has a valid commit record; without one, its files may still be used
    std::vector<std::pair<std::string, int64_t>> files;  // names and bytes
    std::vector<std::string> parity;                     // what parity files say of themselves
  };
  std::vector<Copy> copies;

  // "memory of 2 nodes, runs/a/checkpoints/step-00000010.g0001".
  std::string where() const;
};

// Steps, newest first, that a commit record was found of: in the checkpoint directory, which rank 0
// looks at, or in a tier of any node, which the node's lowest rank looks at. The same on all ranks.
// `skipped` as in ListCheckpoints, on rank 0. Collective.
absl::StatusOr<std::vector<FoundCheckpoint>> FindCheckpoints(
    FileSystem& files, const std::string& checkpoint_directory,
    const std::vector<TierDirectory>& tiers, const std::vector<int>& nodes, Transport& transport,
    std::vector<std::string>* skipped = nullptr);

// One step, read from wherever its files are: this node's tiers, other nodes' (through the
// transport), the checkpoint directory, in this order; what is missing, unreadable or damaged there
// is taken from the next one. What is in none of them is computed from parity and other files. All
// functions are collective and fail alike on all ranks.
class TieredRestore {
 public:
  // Reads the manifest. DataLoss if it cannot be had, or a file of it is nowhere and cannot be
  // computed. All arguments outlive the object.
  static absl::StatusOr<std::unique_ptr<TieredRestore>> Open(FileSystem& files,
                                                             const FoundCheckpoint& found,
                                                             const std::vector<int>& nodes,
                                                             Transport& transport);
  virtual ~TieredRestore() = default;
  // `directory` is the checkpoint directory's, or that of the copy that the manifest is from.
  virtual const CheckpointInfo& info() const = 0;
  // As ListTensors; not collective.
  virtual std::vector<CheckpointTensor> tensors() const = 0;
  // As RestoreRegions. `notes` gets a line for every file that this rank had to take from elsewhere
  // than where it was looked for first, and for every file that had to be computed for any rank.
  virtual absl::Status Restore(const std::vector<StateRegion>& regions,
                               std::vector<std::string>* notes) = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_TIERS_H_
