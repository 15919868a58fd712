// Step inputs: the tokens that one rank's part of a step plan names, read from the data set and
// laid out for the model.
#ifndef LONGSPAN_RUNTIME_TRAIN_STEP_INPUTS_H_
#define LONGSPAN_RUNTIME_TRAIN_STEP_INPUTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/mirrored_buffer.h"
#include "kernels/device/stream.h"
#include "parallel/plan.h"
#include "parallel/ring_layout.h"
#include "runtime/data/dataset.h"
#include "runtime/model/transformer.h"

namespace longspan {

// One micro-batch of one rank. Rows: the ring's slices first (each part r, then part 2d-1-r), then
// whole sequences.
struct MicroBatchInputs {
  Buffer buffer;     // ids, positions, targets: i32, rows each
  TokenBatch batch;  // views into it
  std::optional<RingLayout> ring;
  std::vector<int64_t> whole;  // lengths of the whole sequences
};

// Reads exactly the tokens of rank `rank`'s slices (and the one target after each range).
// `sequences` is the global batch that the plan was made for, in its order.
absl::StatusOr<std::vector<MicroBatchInputs>> ReadStepInputs(
    const StepPlan& plan, int rank, const std::vector<SequenceRef>& sequences,
    const Dataset& dataset, MemoryTable& memory);

// What the micro-batches of one step need of memory that host and device share: on a GPU tokens in
// pinned memory, so that copying them does not stop the host, and everywhere losses of all rows.
// Grows with the steps and is kept.
class StepBuffers {
 public:
  // Some more rows than are asked for, so that the next larger step needs no other memory.
  static int64_t RoomFor(int64_t rows) { return rows + (rows + 3) / 4; }

  // For these inputs, whose views are turned to memory kept here where that is better. Call it
  // while no work of an earlier step is queued.
  absl::Status Take(std::vector<MicroBatchInputs>& inputs, Device& device);
  // Of micro-batch `index`: f32 (rows), on the device.
  TensorView Losses(size_t index) const;
  // Adds them to *sum on the host, in the stream's order; done when the event is.
  Event QueueLossSum(size_t index, std::shared_ptr<double> sum, Stream& stream) const;

 private:
  std::vector<int64_t> begins_;  // first row of each micro-batch, and the end of the last
  MirroredBuffer losses_;
  Buffer tokens_;  // pinned; on a GPU alone
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_STEP_INPUTS_H_
