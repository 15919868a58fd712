#include "runtime/train/training_state.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "kernels/optimizer_pass.h"

namespace longspan {

absl::StatusOr<std::unique_ptr<TrainingState>> TrainingState::Create(
    const ModelConfig& config, const OptimizerConfig& optimizer, Transport& transport,
    Device& device) {
  auto state = std::unique_ptr<TrainingState>(new TrainingState(config, transport));
  const ParameterLayout& layout = state->layout_;
  const int64_t bytes = layout.arena_elements() * SizeOf(DType::kF32);
  absl::StatusOr<Buffer> parameters =
      Buffer::AllocateZeroed(device.memory(), bytes, "parameters", Placement::kDevice);
  if (!parameters.ok()) return parameters.status();
  absl::StatusOr<Buffer> gradients =
      Buffer::AllocateZeroed(device.memory(), bytes, "gradients", Placement::kDevice);
  if (!gradients.ok()) return gradients.status();
  state->parameters_ = *std::move(parameters);
  state->gradients_ = *std::move(gradients);
  state->weights_ = WeightsIn(config, layout, state->parameter_arena());
  state->gradient_weights_ = WeightsIn(config, layout, state->gradient_arena());

  std::vector<OwnedRange> owned;
  for (const ShardRange& range : layout.Shard(transport.rank())) {
    owned.push_back({range.bucket, range.arena_begin, range.shard_begin,
                     range.flat_end - range.flat_begin, layout.specs()[range.tensor].decay});
  }
  absl::StatusOr<ShardedOptimizer> sharded =
      ShardedOptimizer::Create(optimizer, owned, static_cast<int64_t>(layout.buckets().size()),
                               layout.shard_elements(), device);
  if (!sharded.ok()) return sharded.status();
  state->optimizer_ = std::make_unique<ShardedOptimizer>(*std::move(sharded));
  state->written_count_ = 1 + static_cast<int64_t>(state->optimizer_->States().size());
  absl::StatusOr<Buffer> sums =
      Buffer::AllocateZeroed(device.memory(), state->written_count_ * SizeOf(DType::kU64),
                             "optimizer", Placement::kDevice);
  if (!sums.ok()) return sums.status();
  state->written_sums_ = *std::move(sums);
  return state;
}

TensorView TrainingState::Shard(TensorView arena, int64_t bucket) const {
  const int64_t begin = layout_.shard_arena_begin(bucket, transport_.rank());
  return arena.Slice(0, begin, begin + layout_.shard_bucket_elements(bucket));
}

void TrainingState::ReduceGradients(TensorView statistics, Stream& stream) {
  for (size_t b = 0; b < layout_.buckets().size(); ++b) {
    const ParameterLayout::Bucket& bucket = layout_.buckets()[b];
    const TensorView whole =
        gradient_arena().Slice(0, bucket.begin, bucket.begin + bucket.elements);
    const TensorView shard = Shard(gradient_arena(), static_cast<int64_t>(b));
    transport_.ReduceScatterSum(whole, shard, stream);
    AccumulateGradientStatistics(shard, statistics, stream);
  }
}

void TrainingState::Update(const OptimizerStep& step, const std::vector<Event>& gates,
                           Stream& stream, TensorView adam_sum, bool sums) {
  TensorView written;
  if (sums) {
    written = written_sums_.Tensor(DType::kU64, {written_count_});
    Zero(written, stream);
  }
  sums_written_ = sums;
  optimizer_->Update(step, parameter_arena(), gradient_arena(), gates, stream, adam_sum, written);
  GatherParameters(stream);
}

void TrainingState::GatherParameters(Stream& stream) {
  for (size_t b = 0; b < layout_.buckets().size(); ++b) {
    const ParameterLayout::Bucket& bucket = layout_.buckets()[b];
    transport_.AllGather(Shard(parameter_arena(), static_cast<int64_t>(b)),
                         parameter_arena().Slice(0, bucket.begin, bucket.begin + bucket.elements),
                         stream);
  }
}

std::vector<uint64_t> TrainingState::ContentSums() const {
  if (!sums_written_) return {};
  const auto* sums = written_sums_.Tensor(DType::kU64, {written_count_}).data<uint64_t>();
  return {sums, sums + written_count_};
}

std::vector<StateRegion> TrainingState::Regions() const {
  std::vector<StateRegion> regions;
  const auto add = [&](const ShardRange& range, const std::string& group, float* data, int sum) {
    const ParameterSpec& spec = layout_.specs()[range.tensor];
    regions.push_back({group, spec.name, DType::kF32, spec.shape, range.flat_begin, range.flat_end,
                       data, static_cast<int>(range.bucket), sum, range.shard_begin});
  };
  // Bucket by bucket, as Update changes them: a snapshot that copies in this order holds each
  // bucket's update back as briefly as can be.
  const std::vector<ShardedOptimizer::State> states = optimizer_->States();
  const std::vector<ShardRange> ranges = layout_.Shard(transport_.rank());
  for (size_t begin = 0, end = 0; begin < ranges.size(); begin = end) {
    while (end < ranges.size() && ranges[end].bucket == ranges[begin].bucket) ++end;
    for (size_t i = begin; i < end; ++i)
      add(ranges[i], "/parameters", parameter_arena().data<float>() + ranges[i].arena_begin, 0);
    for (size_t s = 0; s < states.size(); ++s) {
      for (size_t i = begin; i < end; ++i)
        add(ranges[i], absl::StrCat("/optimizer/", states[s].name),
            states[s].values.data<float>() + ranges[i].shard_begin, static_cast<int>(s) + 1);
    }
  }
  return regions;
}

}  // namespace longspan
