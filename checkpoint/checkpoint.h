// Checkpoints: named ranges of tensors -> durable, committed, verifiable files, and back on any
// number of ranks.
//
// Format: FORMAT.md. Saving here is synchronous and collective; lazy_writer.h saves in the
// background. The order of syncs and the commit record are what makes a checkpoint count: a
// directory without a valid COMMIT is never restored.
#ifndef LONGSPAN_CHECKPOINT_CHECKPOINT_H_
#define LONGSPAN_CHECKPOINT_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/file_system.h"
#include "kernels/device/tensor_view.h"
#include "parallel/transport/transport.h"

namespace longspan {

// The flat range of one tensor that this rank holds. Registered once; memory stays the owner's.
struct StateRegion {
  std::string group;   // "/parameters", "/optimizer/first_moment", ...
  std::string tensor;  // "model.norm.weight"
  DType dtype = DType::kF32;
  std::vector<int64_t> global_shape;  // of the whole tensor
  int64_t flat_begin = 0;             // elements of the flattened tensor
  int64_t flat_end = 0;
  void* data = nullptr;  // flat_end - flat_begin elements
  // Which of the owner's updates changes this memory: a lazy snapshot tells, gate by gate, when
  // memory may change again. 0, 1, ...; regions come in ascending order of gates.
  int gate = 0;
  // Which of SnapshotRequest::content_sums this memory is part of, -1: of none, and the position in
  // it of the region's first 32-bit word (kernels/device/content_sum.h).
  int content_sum = -1;
  int64_t content_position = 0;
};

struct CheckpointOptions {
  std::string directory;  // runs/NAME/checkpoints; its parent exists
  std::string run_id;
  int keep_last = 3;       // newest committed steps kept, at least 1
  int64_t keep_every = 0;  // steps that are multiples of this are kept for good; 0: none
};

// What a save took.
struct SaveReport {
  std::string directory;  // of the committed step
  int64_t bytes = 0;      // of this rank's file
  double seconds = 0;     // from the call until the step was committed, or this rank knew of it
  // Of lazy saves, on this rank:
  double copy_seconds = 0;   // until the state might change again, from the moment it was complete
  double write_seconds = 0;  // from the first write until the file was synced
  double pool_seconds = 0;   // of copy_seconds: waiting for memory of the pool
  double processor_seconds = 0;  // in the background
  int64_t checked_sums = 0;      // content sums that were compared with the owner's
  int64_t backlog_bytes = 0;     // of older saves, not yet handed to the disk when this one began
  // What went wrong after the commit, which stands: `latest` not updated, an old checkpoint not
  // removed. Alike on all ranks.
  std::vector<std::string> warnings;
};

// A committed checkpoint, as found on disk.
struct CheckpointInfo {
  std::string directory;
  int64_t generation = 0;
  int64_t step = 0;
  int ranks = 0;
  int64_t bytes = 0;  // of all ranks' files
  std::string time;   // of the commit, UTC, ISO 8601
  std::string run_id;
  std::string metadata;  // the JSON object given to Save
};

// Saves the steps of one attempt of a run. Collective: every rank calls the same functions in the
// same order. Thread-safety: one thread at a time.
class CheckpointWriter {
 public:
  // Creates the directory and a new generation (O_EXCL) that fences off older attempts. Collective;
  // fails on every rank if it fails on one, naming a rank, its host and the path that it does not
  // see. `files` and `transport` must outlive the writer.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Open(FileSystem& files,
                                                                CheckpointOptions options,
                                                                Transport& transport);
  virtual ~CheckpointWriter() = default;
  virtual int64_t generation() const = 0;
  // Writes and commits `regions` as `step`. `metadata` is a JSON object, equal on all ranks, kept
  // in the manifest (model, optimizer, schedule, data cursor, seeds). The regions of all ranks
  // together hold every element of every tensor exactly once; a rank has at most one region of a
  // tensor. On any rank's failure every rank returns an error, the step is not committed, and the
  // previous checkpoint stays. InvalidArgument: wrong regions or metadata; AlreadyExists: this
  // generation has committed the step already; FailedPrecondition: a newer attempt of the run has
  // started; ResourceExhausted: the disk is full; Unavailable: a peer is gone (if it went last of
  // all, the step may be committed, whole).
  virtual absl::StatusOr<SaveReport> Save(int64_t step, const std::vector<StateRegion>& regions,
                                          const std::string& metadata) = 0;
};

// Committed checkpoints under `directory`, newest (highest generation, then step) first.
// Directories without a valid commit record are left out; `skipped`, if not null, gets a line for
// each, saying why. Empty if there is no such directory. An error, rather than a shorter list, if
// one cannot be read.
absl::StatusOr<std::vector<CheckpointInfo>> ListCheckpoints(
    FileSystem& files, const std::string& directory, std::vector<std::string>* skipped = nullptr);

// Reads manifest and commit record of one step directory. DataLoss if it is not whole; files may
// be missing (a node's directory of a tier holds some) where `elsewhere` is not null: it gets their
// names.
absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(FileSystem& files,
                                                  const std::string& step_directory,
                                                  std::vector<std::string>* elsewhere = nullptr);

// Fills `regions` (whatever ranges this rank holds now) from the files of any number of old ranks.
// Every chunk that is read is verified against its CRC. Not collective. DataLoss names file and
// offset of what does not verify; NotFound names a tensor that the checkpoint lacks,
// InvalidArgument one of another shape or dtype. After an error the regions' contents are
// undefined.
absl::Status RestoreRegions(FileSystem& files, const CheckpointInfo& info,
                            const std::vector<StateRegion>& regions);

// Reads every byte of every file and compares with the manifest; also the state hash with the
// tensors' bytes. DataLoss names every file and byte range that differ. With `elsewhere`, files may
// be missing as for ReadCheckpointInfo: it gets their names, and only tensors that are here whole
// are compared.
absl::Status VerifyCheckpoint(FileSystem& files, const CheckpointInfo& info,
                              std::vector<std::string>* elsewhere = nullptr);

// Names, shapes, dtypes and checksums of all tensors of a checkpoint, whichever files are here.
struct CheckpointTensor {
  std::string group, tensor;
  DType dtype = DType::kF32;
  std::vector<int64_t> global_shape;
  uint64_t crc64 = 0;  // of the whole tensor's bytes, however it was cut among ranks
};
absl::StatusOr<std::vector<CheckpointTensor>> ListTensors(FileSystem& files,
                                                          const CheckpointInfo& info);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_CHECKPOINT_H_
