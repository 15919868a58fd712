#include "optim/sharded_sgd.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/optimizer_pass.h"

namespace longspan {

absl::StatusOr<ShardedSgd> ShardedSgd::Create(const SgdConfig& config,
                                              const std::vector<OwnedRange>& owned, int64_t buckets,
                                              int64_t shard_elements, Device& device) {
  // Conditions are written so that NaN fails them.
  if (!(config.momentum >= 0 && config.momentum < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("optimizer.momentum is ", config.momentum, "; it must be in [0, 1)"));
  }
  if (!(config.weight_decay >= 0 && std::isfinite(config.weight_decay))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "optimizer.weight_decay is ", config.weight_decay, "; it must be finite and not negative"));
  }
  ShardedSgd optimizer;
  optimizer.config_ = config;
  optimizer.shard_elements_ = shard_elements;
  optimizer.ranges_ = BucketRanges(owned, buckets, shard_elements);
  absl::StatusOr<Buffer> buffer = Buffer::AllocateZeroed(
      device.memory(), shard_elements * SizeOf(DType::kF32), "optimizer", Placement::kDevice);
  if (!buffer.ok()) return buffer.status();
  optimizer.momentum_ = *std::move(buffer);
  return optimizer;
}

void ShardedSgd::Update(const OptimizerStep& step, TensorView parameters, TensorView gradients,
                        const std::vector<Event>& gates, Stream& stream, TensorView written_sums) {
  LONGSPAN_CHECK(gradients.rank() == 1, "arenas are flat");
  SgdParameters pass{
      .rate = step.rate, .momentum = config_.momentum, .gradient_scale = step.gradient_scale};
  ranges_.ForEach(gates, stream, [&](const OwnedRange& range) {
    const int64_t arena_end = range.arena_begin + range.elements;
    pass.weight_decay = range.decay ? config_.weight_decay : 0;
    SgdUpdate(pass, gradients.Slice(0, range.arena_begin, arena_end),
              ranges_.Parameters(parameters, range),
              momentum().Slice(0, range.shard_begin, range.shard_begin + range.elements), stream,
              {written_sums, range.shard_begin});
  });
}

TensorView ShardedSgd::momentum() const { return momentum_.Tensor(DType::kF32, {shard_elements_}); }

}  // namespace longspan
