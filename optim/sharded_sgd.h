// ShardedSgd: SGD with momentum on one rank's part of the parameters (ZeRO-1).
#ifndef LONGSPAN_OPTIM_SHARDED_SGD_H_
#define LONGSPAN_OPTIM_SHARDED_SGD_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "optim/sharded_update.h"

namespace longspan {

struct SgdConfig {
  double momentum = 0.9;
  double weight_decay = 0;  // added to the gradient, as PyTorch's SGD does
};

// Owns the arena of momentum, zeros at first. Move-only; not thread-safe; the Device outlives it.
class ShardedSgd {
 public:
  // As ShardedAdamW::Create.
  static absl::StatusOr<ShardedSgd> Create(const SgdConfig& config,
                                           const std::vector<OwnedRange>& owned, int64_t buckets,
                                           int64_t shard_elements, Device& device);

  // As ShardedAdamW::Update; step.number is not used. written_sums: none, or u64 (2): of this
  // rank's parameters and momentum.
  void Update(const OptimizerStep& step, TensorView parameters, TensorView gradients,
              const std::vector<Event>& gates, Stream& stream,
              TensorView written_sums = TensorView());

  // f32 (shard_elements), for checkpoints to read and restore.
  TensorView momentum() const;

 private:
  ShardedSgd() = default;

  SgdConfig config_;
  BucketRanges ranges_;
  int64_t shard_elements_ = 0;
  Buffer momentum_;
};

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_SHARDED_SGD_H_
