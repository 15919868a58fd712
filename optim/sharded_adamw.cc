#include "optim/sharded_adamw.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/optimizer_pass.h"

namespace longspan {
namespace {

absl::Status BadSetting(const char* key, double value, const char* rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("optimizer.", key, " is ", value, "; it must be ", rule));
}

// Conditions are written so that NaN fails them.
absl::Status CheckConfig(const AdamWConfig& config) {
  if (!(config.beta1 >= 0 && config.beta1 < 1)) {
    return BadSetting("betas[0]", config.beta1, "in [0, 1)");
  }
  if (!(config.beta2 >= 0 && config.beta2 < 1)) {
    return BadSetting("betas[1]", config.beta2, "in [0, 1)");
  }
  if (!(config.eps > 0 && std::isfinite(config.eps))) {
    return BadSetting("eps", config.eps, "positive and finite");
  }
  if (!(config.weight_decay >= 0 && std::isfinite(config.weight_decay))) {
    return BadSetting("weight_decay", config.weight_decay, "finite and not negative");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ShardedAdamW> ShardedAdamW::Create(const AdamWConfig& config,
                                                  const std::vector<OwnedRange>& owned,
                                                  int64_t buckets, int64_t shard_elements,
                                                  Device& device) {
  if (absl::Status status = CheckConfig(config); !status.ok()) return status;
  ShardedAdamW optimizer;
  optimizer.config_ = config;
  optimizer.shard_elements_ = shard_elements;
  optimizer.ranges_ = BucketRanges(owned, buckets, shard_elements);
  for (Buffer* moment : {&optimizer.first_moment_, &optimizer.second_moment_}) {
    absl::StatusOr<Buffer> buffer = Buffer::AllocateZeroed(
        device.memory(), shard_elements * SizeOf(DType::kF32), "optimizer", Placement::kDevice);
    if (!buffer.ok()) return buffer.status();
    *moment = *std::move(buffer);
  }
  return optimizer;
}

void ShardedAdamW::Update(const Step& step, TensorView parameters, TensorView gradients,
                          const std::vector<Event>& gates, Stream& stream, TensorView adam_sum,
                          TensorView written_sums) {
  LONGSPAN_CHECK(gradients.rank() == 1, "arenas are flat");
  AdamWParameters pass{.rate = step.rate,
                       .beta1 = config_.beta1,
                       .beta2 = config_.beta2,
                       .eps = config_.eps,
                       .gradient_scale = step.gradient_scale,
                       .step = step.number};
  ranges_.ForEach(gates, stream, [&](const OwnedRange& range) {
    const int64_t arena_end = range.arena_begin + range.elements;
    const int64_t shard_end = range.shard_begin + range.elements;
    pass.weight_decay = range.decay ? config_.weight_decay : 0;
    AdamWUpdate(pass, gradients.Slice(0, range.arena_begin, arena_end),
                ranges_.Parameters(parameters, range),
                first_moment().Slice(0, range.shard_begin, shard_end),
                second_moment().Slice(0, range.shard_begin, shard_end), stream, adam_sum,
                {written_sums, range.shard_begin});
  });
}

TensorView ShardedAdamW::first_moment() const {
  return first_moment_.Tensor(DType::kF32, {shard_elements_});
}

TensorView ShardedAdamW::second_moment() const {
  return second_moment_.Tensor(DType::kF32, {shard_elements_});
}

}  // namespace longspan
