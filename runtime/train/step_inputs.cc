#include "runtime/train/step_inputs.h"

#include <utility>

#include "kernels/device/check.h"

namespace longspan {
namespace {

absl::StatusOr<MicroBatchInputs> ReadMicroBatch(const StepPlan& plan, int rank,
                                                const MicroBatch& micro_batch,
                                                const std::vector<SequenceRef>& sequences,
                                                const Dataset& dataset, MemoryTable& memory) {
  MicroBatchInputs inputs;
  inputs.ring = RingOf(plan, rank, micro_batch);
  const int64_t rows = micro_batch.tokens();
  absl::StatusOr<Buffer> buffer =
      Buffer::Allocate(memory, 3 * rows * SizeOf(DType::kI32), "tokens", Placement::kPinnedHost);
  if (!buffer.ok()) return buffer.status();
  inputs.buffer = *std::move(buffer);
  inputs.batch.ids = inputs.buffer.Tensor(DType::kI32, {rows});
  inputs.batch.positions = inputs.buffer.Tensor(DType::kI32, {rows}, rows * SizeOf(DType::kI32));
  inputs.batch.targets = inputs.buffer.Tensor(DType::kI32, {rows}, 2 * rows * SizeOf(DType::kI32));
  int32_t* const ids = inputs.batch.ids.data<int32_t>();
  int32_t* const positions = inputs.batch.positions.data<int32_t>();
  int32_t* const targets = inputs.batch.targets.data<int32_t>();

  std::vector<int32_t> tokens;
  int64_t row = 0;
  for (const SequenceSlice& slice : InRowOrder(micro_batch)) {
    if (slice.group < 0) inputs.whole.push_back(plan.lengths[slice.sequence]);
    for (const TokenRange& range : slice.ranges) {
      tokens.resize(range.size() + 1);
      absl::Status status =
          dataset.Read(sequences[slice.sequence], range.begin, range.end, tokens.data());
      if (!status.ok()) return status;
      for (int64_t i = 0; i < range.size(); ++i, ++row) {
        ids[row] = tokens[i];
        targets[row] = tokens[i + 1];
        positions[row] = static_cast<int32_t>(range.begin + i);
      }
    }
  }
  LONGSPAN_CHECK(row == rows, "slices and ranges disagree");
  return inputs;
}

}  // namespace

absl::StatusOr<std::vector<MicroBatchInputs>> ReadStepInputs(
    const StepPlan& plan, int rank, const std::vector<SequenceRef>& sequences,
    const Dataset& dataset, MemoryTable& memory) {
  std::vector<MicroBatchInputs> inputs;
  for (const MicroBatch& micro_batch : plan.micro_batches[rank]) {
    absl::StatusOr<MicroBatchInputs> next =
        ReadMicroBatch(plan, rank, micro_batch, sequences, dataset, memory);
    if (!next.ok()) return next.status();
    inputs.push_back(*std::move(next));
  }
  return inputs;
}

}  // namespace longspan
