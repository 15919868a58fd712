// StepProtocol: what ranks do together around the files of one step, in the background: the step
// directory before, the commit after. Two of them: one directory that all ranks share
// (shared_steps.cc), and a directory on every node (node_steps.cc).
#ifndef LONGSPAN_CHECKPOINT_STEP_PROTOCOL_H_
#define LONGSPAN_CHECKPOINT_STEP_PROTOCOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "checkpoint/background_vote.h"
#include "checkpoint/lazy_writer.h"
#include "checkpoint/step_directory.h"

namespace longspan {

// A step on its way.
struct SavedStep {
  StepName name;
  std::string tag;        // of its messages: begins with nothing that another save's begins with
  std::string directory;  // of this rank's file
  std::string metadata;   // JSON object, the same on all ranks
  bool changed = false;   // the state must differ from that of the save before
  bool made_directory = false;  // by this rank
};

// For two threads: the writer calls Begin, Piece and EndFile, for one step after the other; the
// committer calls Commit and Finish, for each step after its EndFile. Every step gets a Begin, an
// EndFile, a Commit and a Finish.
class StepProtocol {
 public:
  virtual ~StepProtocol() = default;
  // "memory": of the tier; empty for the checkpoint directory itself.
  virtual std::string name() const { return ""; }
  // `mine`: what this rank knows to be wrong already. On success the step directory exists, and all
  // ranks have the same metadata.
  virtual absl::Status Begin(SavedStep& step, const absl::Status& mine) = 0;
  // A piece of this rank's file of `file_bytes`, before it is written; in order.
  virtual absl::Status Piece(const SavedStep& /*step*/, int64_t /*piece*/, const char* /*data*/,
                             int64_t /*bytes*/, int64_t /*file_bytes*/) {
    return absl::OkStatus();
  }
  // This rank's file is durable, or not, as `mine` says. Returns that, or what else is wrong.
  virtual absl::Status EndFile(const SavedStep& /*step*/, const absl::Status& mine) { return mine; }
  // `contribution`: this rank's part of the manifest. Lines of warnings, as soon as the step
  // counts.
  virtual absl::StatusOr<std::string> Commit(const SavedStep& step, const absl::Status& mine,
                                             const std::string& contribution) = 0;
  // What may fail without taking the step back, and may take as long as a save: the removal of
  // older steps. `outcome`: of Commit on this rank. Lines of warnings, the same on all ranks; an
  // error if not every rank has said what it could not do.
  virtual absl::StatusOr<std::string> Finish(const SavedStep& step,
                                             const absl::Status& outcome) = 0;
};

// `file_bytes`: of the file that every rank writes in each step. `stop`, when set, ends waits; it
// outlives the protocol.
using MakeProtocol = std::function<std::unique_ptr<StepProtocol>(
    const std::vector<int64_t>& file_bytes, const std::atomic<bool>& stop)>;

std::unique_ptr<StepProtocol> MakeSharedSteps(FileSystem& files, CheckpointOptions options,
                                              int64_t generation, Transport& transport,
                                              absl::Duration timeout,
                                              const std::atomic<bool>& stop);

// Collective. Of a generation that is claimed already.
absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> OpenLazyWriter(
    FileSystem& files, CheckpointOptions options, LazyOptions lazy,
    std::vector<StateRegion> regions, MemoryTable& memory, Transport& transport, int64_t generation,
    const MakeProtocol& protocol);

// What both protocols begin with: rank 0 tells `mine` and a hash of the metadata, the others
// compare. Rank 0's failure, or this rank's.
absl::Status AgreeOnMetadata(BackgroundVote vote, bool leader, const std::string& metadata,
                             const absl::Status& mine);

// A failed vote that every rank has answered, so that none is still writing: what the step left may
// be removed. Not so if a peer is late or gone.
bool EveryRankIsThrough(const absl::Status& failure);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_STEP_PROTOCOL_H_
