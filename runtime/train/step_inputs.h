// Step inputs: the tokens that one rank's part of a step plan names, read from the data set and
// laid out for the model.
#ifndef LONGSPAN_RUNTIME_TRAIN_STEP_INPUTS_H_
#define LONGSPAN_RUNTIME_TRAIN_STEP_INPUTS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
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

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_STEP_INPUTS_H_
