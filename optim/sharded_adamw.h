// ShardedAdamW: the optimizer state of one rank (ZeRO-1) and its update.
#ifndef LONGSPAN_OPTIM_SHARDED_ADAMW_H_
#define LONGSPAN_OPTIM_SHARDED_ADAMW_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "optim/sharded_update.h"

namespace longspan {

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0;
};

// Owns the arenas of first and second moments, zeros at first. The step count is the caller's: it
// is stored once, with the rest of the run's state. Move-only; not thread-safe; the Device outlives
// it.
class ShardedAdamW {
 public:
  using Step = OptimizerStep;

  // Moments of `shard_elements` f32 each, under the tag "optimizer". `owned`: ascending in
  // shard_begin, without overlap, buckets ascending within [0, buckets). InvalidArgument: a value
  // of `config` out of range (the message names it). ResourceExhausted: no memory.
  static absl::StatusOr<ShardedAdamW> Create(const AdamWConfig& config,
                                             const std::vector<OwnedRange>& owned, int64_t buckets,
                                             int64_t shard_elements, Device& device);

  // Queues on `stream` the update of this rank's part of all buckets, first bucket first; the part
  // of bucket b waits for gates[b] (one each; a default-constructed Event is open). gradients: f32
  // (arena elements), the full arena; parameters: the same, or f32 (shard_elements), this rank's
  // part of it alone. Only owned ranges are read and written.
  // Gradients are summed over ranks, unscaled. A failed gate makes the stream fail and leaves the
  // parameters of that bucket and later ones as they were. adam_sum: none, or f64 (1), which gains
  // what kernels/optimizer_pass.h says, over this rank's part. written_sums: none, or u64 (3): gain
  // the content sums of this rank's parameters, first and second moments, at their places in the
  // shard.
  void Update(const Step& step, TensorView parameters, TensorView gradients,
              const std::vector<Event>& gates, Stream& stream, TensorView adam_sum = TensorView(),
              TensorView written_sums = TensorView());

  // f32 (shard_elements), for checkpoints to read and restore.
  TensorView first_moment() const;
  TensorView second_moment() const;
  const AdamWConfig& config() const { return config_; }

 private:
  ShardedAdamW() = default;

  AdamWConfig config_;
  BucketRanges ranges_;
  int64_t shard_elements_ = 0;
  Buffer first_moment_;
  Buffer second_moment_;
};

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_SHARDED_ADAMW_H_
