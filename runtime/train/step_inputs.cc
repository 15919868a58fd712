#include "runtime/train/step_inputs.h"

#include <algorithm>
#include <utility>

#include "kernels/device/check.h"

namespace longspan {
namespace {

// Group slices in group order, so that every member of a ring sees its sequences alike; then whole
// sequences.
std::vector<SequenceSlice> InRowOrder(std::vector<SequenceSlice> slices) {
  std::stable_sort(slices.begin(), slices.end(),
                   [](const SequenceSlice& a, const SequenceSlice& b) {
                     if ((a.group < 0) != (b.group < 0)) return b.group < 0;
                     return a.group < b.group;
                   });
  return slices;
}

absl::StatusOr<MicroBatchInputs> ReadMicroBatch(const StepPlan& plan, int rank,
                                                const MicroBatch& micro_batch,
                                                const std::vector<SequenceRef>& sequences,
                                                const Dataset& dataset, MemoryTable& memory) {
  MicroBatchInputs inputs;
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
  for (const SequenceSlice& slice : InRowOrder(micro_batch.slices)) {
    const int64_t length = plan.lengths[slice.sequence];
    if (slice.group < 0) {
      inputs.whole.push_back(length);
    } else {
      const std::vector<int>& ranks = plan.groups[slice.group].ranks;
      if (!inputs.ring.has_value()) {
        const auto member = std::find(ranks.begin(), ranks.end(), rank);
        LONGSPAN_CHECK(member != ranks.end(), "a slice on a rank outside its group");
        inputs.ring = RingLayout{ranks, static_cast<int>(member - ranks.begin()), {}};
      }
      inputs.ring->lengths.push_back(length);
    }
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
