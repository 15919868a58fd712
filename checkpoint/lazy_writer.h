// LazyCheckpointWriter: saves that the training thread does not wait for.
//
// State changes only in the owner's update. From the end of one update to the beginning of the next
// it stands still, so a snapshot is a note of the version; the bytes are copied out in the
// background, and the next update waits, gate by gate, for what is not yet out. From host memory
// they go to the disk, ranks vote by tagged messages, and rank 0 commits, all in the background.
//
//   Snapshot -> copier: memory -> pool chunk, checksums   opens gates
//            -> writer: step directory, writes, sync
//            -> committer: votes, manifest, COMMIT; then retention, for which no snapshot waits
#ifndef LONGSPAN_CHECKPOINT_LAZY_WRITER_H_
#define LONGSPAN_CHECKPOINT_LAZY_WRITER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/file_system.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct LazyOptions {
  // Host memory for bytes on their way. 0: what a snapshot of this rank needs, but at most an
  // eighth of the machine's memory over the ranks of this node.
  int64_t pool_bytes = 0;
  // Snapshots that are not yet committed, at most; at least 1. A snapshot's file is begun when the
  // in_flight-th one before is through with its removals: there are never more files than that.
  int in_flight = 2;
  // How long a vote waits for other ranks before the save fails.
  absl::Duration timeout = absl::Minutes(10);
  // Brings state to host memory; null: it is there. Called in the background.
  std::function<void(void* to, const void* from, int64_t bytes)> copy;
  // Where it is set, copies are queued there instead, a few at a time, and gates are points of it:
  // a GPU's update waits for them without the host. It does nothing else and outlives the writer.
  Stream* copies = nullptr;
};

struct SnapshotRequest {
  int64_t step = 0;
  // Returns the JSON object for the manifest, equal on all ranks. Called once, in the background:
  // whatever it uses is held by value.
  std::function<std::string()> metadata;
  // The state is complete when it is done: recorded on the stream that computes it.
  Event complete;
  // The state must differ from that of the snapshot before; if it does not, the save fails.
  bool changed = false;
  // What the owner wrote, as its update tells: the content sums of the regions with content_sum 0,
  // 1, ... on this rank, as many as there are, or none. The save fails if the memory that was
  // copied out has others: it was torn, or is not what the update wrote to.
  std::vector<uint64_t> content_sums;
};

// How a snapshot ended.
struct FinishedSave {
  int64_t step = 0;
  // Not OK: the step does not count and the one before stays. DeadlineExceeded on ranks other than
  // 0: the outcome did not get here in time.
  absl::Status status;
  SaveReport report;
};

// What Open will take as its pool for a rank with so many bytes of state, to about a chunk.
int64_t LazyPoolBytes(const LazyOptions& options, int64_t state_bytes, int ranks_on_node);

// Thread-safety: Snapshot, Drain and the destructor on one thread; the rest on any. Open is
// collective; Snapshot is called on every rank, with the same steps in the same order.
class LazyCheckpointWriter {
 public:
  // Claims a generation as CheckpointWriter::Open does. `regions` as in CheckpointWriter::Save,
  // with gates; their memory, `files`, `memory` and `transport` outlive the writer.
  static absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> Open(
      FileSystem& files, CheckpointOptions options, LazyOptions lazy,
      std::vector<StateRegion> regions, MemoryTable& memory, Transport& transport);
  // Stops: saves that are not yet committed fail. Drain first to keep them.
  virtual ~LazyCheckpointWriter() = default;

  virtual int64_t generation() const = 0;
  // Bytes of this rank's file, and of the pool.
  virtual int64_t file_bytes() const = 0;
  virtual int64_t pool_bytes() const = 0;
  // Snapshot would have to wait. Once false, false until the next Snapshot.
  virtual bool busy() const = 0;
  // Takes a snapshot and returns at once (busy: as soon as an older one is through). The memory of
  // regions with gate g may change when gates[g] is done; gates fail only with LazyOptions::copies.
  // There is a gate for every index up to the highest of any region.
  virtual std::vector<Event> Snapshot(SnapshotRequest request) = 0;
  // Those that have ended, removals included, since the last call, in order.
  virtual std::vector<FinishedSave> TakeFinished() = 0;
  // Blocks until no snapshot is under way, and no removal of older steps.
  virtual void Drain() = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_LAZY_WRITER_H_
