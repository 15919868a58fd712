#include "runtime/train/step_inputs.h"

#include <cstring>
#include <numeric>
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
      Buffer::Allocate(memory, 3 * rows * SizeOf(DType::kI32), "tokens", Placement::kHost);
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

absl::Status StepBuffers::Take(std::vector<MicroBatchInputs>& inputs, Device& device) {
  begins_.assign(1, 0);
  for (const MicroBatchInputs& each : inputs) begins_.push_back(begins_.back() + each.batch.rows());
  const int64_t rows = begins_.back();
  if (losses_.bytes() < rows * SizeOf(DType::kF32)) {
    losses_ = MirroredBuffer();
    absl::StatusOr<MirroredBuffer> losses =
        MirroredBuffer::Allocate(device, RoomFor(rows) * SizeOf(DType::kF32), "losses");
    if (!losses.ok()) return losses.status();
    losses_ = *std::move(losses);
  }
  if (device.kind() == DeviceKind::kCpu) return absl::OkStatus();
  const int64_t token_bytes = 3 * SizeOf(DType::kI32);
  if (tokens_.bytes() < rows * token_bytes) {
    tokens_ = Buffer();
    absl::StatusOr<Buffer> tokens = Buffer::Allocate(device.memory(), RoomFor(rows) * token_bytes,
                                                     "tokens", Placement::kPinnedHost);
    if (!tokens.ok()) return tokens.status();
    tokens_ = *std::move(tokens);
  }
  int64_t offset = 0;
  for (MicroBatchInputs& each : inputs) {
    for (TensorView* view : {&each.batch.ids, &each.batch.positions, &each.batch.targets}) {
      const TensorView pinned = tokens_.Tensor(DType::kI32, {view->dim(0)}, offset);
      std::memcpy(pinned.raw(), view->raw(), static_cast<size_t>(view->bytes()));
      offset += view->bytes();
      *view = pinned;
    }
    each.buffer = Buffer();
  }
  return absl::OkStatus();
}

TensorView StepBuffers::Losses(size_t index) const {
  return losses_.OnDevice(DType::kF32, {begins_[index + 1] - begins_[index]},
                          begins_[index] * SizeOf(DType::kF32));
}

Event StepBuffers::QueueLossSum(size_t index, std::shared_ptr<double> sum, Stream& stream) const {
  const int64_t begin = begins_[index] * SizeOf(DType::kF32);
  const int64_t rows = begins_[index + 1] - begins_[index];
  losses_.ToHost(begin, rows * SizeOf(DType::kF32), stream);
  return stream.RunOnHost(
      "loss sum", [losses = losses_.OnHost(DType::kF32, {rows}, begin), sum = std::move(sum)] {
        const float* values = losses.data<float>();
        *sum = std::accumulate(values, values + losses.elements(), *sum);
        return absl::OkStatus();
      });
}

}  // namespace longspan
