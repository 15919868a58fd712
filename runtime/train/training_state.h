// TrainingState: parameters, gradients and optimizer state of one rank, and the collective part of
// an update (ZeRO-1).
//
// Gradients are a whole FP32 arena on every rank, moments this rank's shards alone. On the CPU the
// parameters are a whole FP32 arena, which models compute with. On a GPU a rank keeps FP32
// parameters of its shards alone, and a whole BF16 arena to compute with; that one is never saved.
// An update: gradients reduce-scattered into this rank's part of the gradient arena, its part of
// the parameters updated, parameters gathered in the type that models compute in.
//
// Gradients accumulate in FP32 on each rank. They travel as FP32 or, in half the bytes, as BF16:
// then each rank rounds what it has accumulated once, and Transport::ReduceScatterSum says in what
// the parts are added up. What the optimizer gets is FP32 either way.
#ifndef LONGSPAN_RUNTIME_TRAIN_TRAINING_STATE_H_
#define LONGSPAN_RUNTIME_TRAIN_TRAINING_STATE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "kernels/device/mirrored_buffer.h"
#include "kernels/device/stream.h"
#include "optim/sharded_optimizer.h"
#include "parallel/parameter_layout.h"
#include "parallel/transport/transport.h"
#include "runtime/model/model_config.h"
#include "runtime/model/weights.h"

namespace longspan {

// Move-only; one thread queues work. The device and the transport outlive it.
class TrainingState {
 public:
  // gradient_wire: f32 or bf16, of gradients between ranks; on one rank nothing is rounded.
  static absl::StatusOr<std::unique_ptr<TrainingState>> Create(const ModelConfig& config,
                                                               const OptimizerConfig& optimizer,
                                                               Transport& transport, Device& device,
                                                               DType gradient_wire = DType::kF32);

  const ParameterLayout& layout() const { return layout_; }
  // What models compute with.
  const Weights& weights() const { return weights_; }
  const Weights& gradients() const { return gradient_weights_; }
  TensorView compute_arena() const {
    return compute_.Tensor(compute_type_, {layout_.arena_elements()});
  }
  TensorView gradient_arena() const {
    return gradients_.Tensor(DType::kF32, {layout_.arena_elements()});
  }

  // Sums gradients over ranks into this rank's shards, bucket by bucket, and adds the shards'
  // statistics to `statistics`, f64 (3), see kernels/optimizer_pass.h.
  void ReduceGradients(TensorView statistics, Stream& stream);
  // Updates this rank's shards, the part of bucket b after gates[b], and gathers the parameters of
  // all ranks. adam_sum: none, or f64 (1), see ShardedOptimizer::Update. `sums`: ContentSums is
  // wanted.
  void Update(const OptimizerStep& step, const std::vector<Event>& gates, Stream& stream,
              TensorView adam_sum = TensorView(), bool sums = false);
  // Gathers parameters from the ranks' shards: after a restore.
  void GatherParameters(Stream& stream);

  // Collective. `fill` writes the whole f32 arena, in host memory, as every rank's does; then
  // parameters are what it wrote. Waits for `stream`.
  absl::Status SetParameters(const std::function<absl::Status(TensorView arena)>& fill,
                             Stream& stream);
  // `read` fills this rank's regions, in host memory; then the state is what it read.
  using UseRegions = std::function<absl::Status(const std::vector<StateRegion>& regions)>;
  absl::Status Restore(const UseRegions& read);
  // `write` gets this rank's regions in host memory.
  absl::Status Save(const UseRegions& write) const;
  // What a checkpoint holds of this rank: its shards of parameters and of the optimizer's moments,
  // bucket by bucket, in memory of the device; the gate of a region is its bucket.
  std::vector<StateRegion> Regions() const;
  // Of Regions(), as the newest update wrote them: for SnapshotRequest. None if it was not asked to
  // tell. The stream of the update is idle.
  std::vector<uint64_t> ContentSums() const;

 private:
  TrainingState(const ModelConfig& config, Transport& transport, Device& device)
      : layout_(ParameterSpecs(config), transport.size()),
        transport_(transport),
        device_(device),
        compute_type_(ComputeTypeOf(device)) {}
  bool apart() const { return compute_type_ != DType::kF32; }
  TensorView Shard(TensorView arena, int64_t bucket) const;
  // The f32 parameters: of the whole arena, or apart from it of this rank's shards.
  TensorView parameters() const {
    return apart() ? parameters_.Tensor(DType::kF32, {layout_.shard_elements()}) : compute_arena();
  }
  TensorView ParameterShard(int64_t bucket) const;
  // shard = the sum over ranks of this rank's part of `whole`, one bucket of the gradient arena.
  void ReduceBucket(TensorView whole, TensorView shard, Stream& stream);
  // Regions like Regions(), in `memory` of the host, allocated here.
  absl::StatusOr<std::vector<StateRegion>> RegionsIn(Buffer& memory) const;

  ParameterLayout layout_;
  Transport& transport_;
  Device& device_;
  const DType compute_type_;
  Buffer compute_, gradients_;
  Buffer sent_gradients_;  // bf16, of the largest bucket; only where that is what travels
  Buffer parameters_;      // only where they are apart
  Weights weights_, gradient_weights_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
  int64_t written_count_ = 0;
  MirroredBuffer
      written_sums_;  // u64 (written_count_): of parameters, then of the optimizer's states
  bool sums_written_ = false;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_TRAINING_STATE_H_
