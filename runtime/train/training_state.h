// TrainingState: parameters, gradients and optimizer state of one rank, and the collective part of
// an update (ZeRO-1).
//
// Parameters and gradients are whole FP32 arenas on every rank; moments are this rank's shards
// alone. An update: gradients reduce-scattered into this rank's part of the gradient arena, that
// part of the parameters updated, parameters gathered.
#ifndef LONGSPAN_RUNTIME_TRAIN_TRAINING_STATE_H_
#define LONGSPAN_RUNTIME_TRAIN_TRAINING_STATE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
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
  static absl::StatusOr<std::unique_ptr<TrainingState>> Create(const ModelConfig& config,
                                                               const OptimizerConfig& optimizer,
                                                               Transport& transport,
                                                               Device& device);

  const ParameterLayout& layout() const { return layout_; }
  const Weights& weights() const { return weights_; }
  const Weights& gradients() const { return gradient_weights_; }
  TensorView parameter_arena() const {
    return parameters_.Tensor(DType::kF32, {layout_.arena_elements()});
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

  // What a checkpoint holds of this rank: its shards of parameters and of the optimizer's moments,
  // bucket by bucket; the gate of a region is its bucket.
  std::vector<StateRegion> Regions() const;
  // Of Regions(), as the newest update wrote them: for SnapshotRequest. None if it was not asked to
  // tell. The stream of the update is idle.
  std::vector<uint64_t> ContentSums() const;

 private:
  TrainingState(const ModelConfig& config, Transport& transport)
      : layout_(ParameterSpecs(config), transport.size()), transport_(transport) {}
  TensorView Shard(TensorView arena, int64_t bucket) const;

  ParameterLayout layout_;
  Transport& transport_;
  Buffer parameters_, gradients_;
  Weights weights_, gradient_weights_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
  int64_t written_count_ = 0;
  Buffer written_sums_;  // u64 (written_count_): of parameters, then of the optimizer's states
  bool sums_written_ = false;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_TRAINING_STATE_H_
