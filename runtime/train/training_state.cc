#include "runtime/train/training_state.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/elementwise.h"
#include "kernels/optimizer_pass.h"

namespace longspan {
namespace {

int64_t BytesOf(const StateRegion& region) {
  return (region.flat_end - region.flat_begin) * SizeOf(region.dtype);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrainingState>> TrainingState::Create(
    const ModelConfig& config, const OptimizerConfig& optimizer, Transport& transport,
    Device& device, DType gradient_wire) {
  LONGSPAN_CHECK(gradient_wire == DType::kF32 || gradient_wire == DType::kBF16,
                 "gradients travel as f32 or bf16");
  auto state = std::unique_ptr<TrainingState>(new TrainingState(config, transport, device));
  const ParameterLayout& layout = state->layout_;
  const int64_t bytes = layout.arena_elements() * SizeOf(DType::kF32);
  absl::StatusOr<Buffer> compute = Buffer::AllocateZeroed(
      device.memory(), layout.arena_elements() * SizeOf(state->compute_type_), "parameters",
      Placement::kDevice);
  if (!compute.ok()) return compute.status();
  if (state->apart()) {
    absl::StatusOr<Buffer> parameters =
        Buffer::AllocateZeroed(device.memory(), layout.shard_elements() * SizeOf(DType::kF32),
                               "parameters", Placement::kDevice);
    if (!parameters.ok()) return parameters.status();
    state->parameters_ = *std::move(parameters);
  }
  absl::StatusOr<Buffer> gradients =
      Buffer::AllocateZeroed(device.memory(), bytes, "gradients", Placement::kDevice);
  if (!gradients.ok()) return gradients.status();
  if (gradient_wire == DType::kBF16 && transport.size() > 1) {
    absl::StatusOr<Buffer> sent =
        Buffer::Allocate(device.memory(), layout.largest_bucket() * SizeOf(DType::kBF16),
                         "gradients", Placement::kDevice);
    if (!sent.ok()) return sent.status();
    state->sent_gradients_ = *std::move(sent);
  }
  state->compute_ = *std::move(compute);
  state->gradients_ = *std::move(gradients);
  state->weights_ = WeightsIn(config, layout, state->compute_arena());
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
  absl::StatusOr<MirroredBuffer> sums =
      MirroredBuffer::Allocate(device, state->written_count_ * SizeOf(DType::kU64), "optimizer");
  if (!sums.ok()) return sums.status();
  state->written_sums_ = *std::move(sums);
  return state;
}

TensorView TrainingState::Shard(TensorView arena, int64_t bucket) const {
  const int64_t begin = layout_.shard_arena_begin(bucket, transport_.rank());
  return arena.Slice(0, begin, begin + layout_.shard_bucket_elements(bucket));
}

TensorView TrainingState::ParameterShard(int64_t bucket) const {
  if (!apart()) return Shard(parameters(), bucket);
  const int64_t begin = layout_.buckets()[bucket].shard_begin;
  return parameters().Slice(0, begin, begin + layout_.shard_bucket_elements(bucket));
}

void TrainingState::ReduceBucket(TensorView whole, TensorView shard, Stream& stream) {
  if (sent_gradients_.bytes() == 0) return transport_.ReduceScatterSum(whole, shard, stream);
  const TensorView sent = sent_gradients_.Tensor(DType::kBF16, {whole.elements()});
  Convert(whole, sent, stream);
  if (transport_.Bf16SumType(stream.kind()) == DType::kF32) {
    return transport_.ReduceScatterSum(sent, shard, stream);
  }
  const int64_t begin = transport_.rank() * shard.elements();
  const TensorView sum = sent.Slice(0, begin, begin + shard.elements());
  transport_.ReduceScatterSum(sent, sum, stream);
  Convert(sum, shard, stream);
}

void TrainingState::ReduceGradients(TensorView statistics, Stream& stream) {
  for (size_t b = 0; b < layout_.buckets().size(); ++b) {
    const ParameterLayout::Bucket& bucket = layout_.buckets()[b];
    const TensorView whole =
        gradient_arena().Slice(0, bucket.begin, bucket.begin + bucket.elements);
    const TensorView shard = Shard(gradient_arena(), static_cast<int64_t>(b));
    ReduceBucket(whole, shard, stream);
    AccumulateGradientStatistics(shard, statistics, stream);
  }
}

void TrainingState::Update(const OptimizerStep& step, const std::vector<Event>& gates,
                           Stream& stream, TensorView adam_sum, bool sums) {
  TensorView written;
  if (sums) {
    written = written_sums_.OnDevice(DType::kU64, {written_count_});
    Zero(written, stream);
  }
  sums_written_ = sums;
  optimizer_->Update(step, parameters(), gradient_arena(), gates, stream, adam_sum, written);
  if (sums) written_sums_.ToHost(0, written_sums_.bytes(), stream);
  GatherParameters(stream);
}

void TrainingState::GatherParameters(Stream& stream) {
  for (size_t b = 0; b < layout_.buckets().size(); ++b) {
    const ParameterLayout::Bucket& bucket = layout_.buckets()[b];
    const TensorView shard = Shard(compute_arena(), static_cast<int64_t>(b));
    if (apart()) Convert(ParameterShard(static_cast<int64_t>(b)), shard, stream);
    transport_.AllGather(
        shard, compute_arena().Slice(0, bucket.begin, bucket.begin + bucket.elements), stream);
  }
}

std::vector<uint64_t> TrainingState::ContentSums() const {
  if (!sums_written_) return {};
  const auto* sums = written_sums_.OnHost(DType::kU64, {written_count_}).data<uint64_t>();
  return {sums, sums + written_count_};
}

absl::Status TrainingState::SetParameters(const std::function<absl::Status(TensorView arena)>& fill,
                                          Stream& stream) {
  if (!apart()) return fill(parameters());
  absl::StatusOr<Buffer> buffer = Buffer::AllocateZeroed(
      device_.memory(), layout_.arena_elements() * SizeOf(DType::kF32), "initial parameters");
  if (!buffer.ok()) return buffer.status();
  const TensorView arena = buffer->Tensor(DType::kF32, {layout_.arena_elements()});
  if (absl::Status status = fill(arena); !status.ok()) return status;
  for (size_t b = 0; b < layout_.buckets().size(); ++b) {
    const TensorView from = Shard(arena, static_cast<int64_t>(b));
    const TensorView to = ParameterShard(static_cast<int64_t>(b));
    absl::Status status = device_.CopyNow(from.raw(), to.raw(), to.bytes());
    if (!status.ok()) return status;
  }
  GatherParameters(stream);
  return stream.Synchronize();
}

absl::StatusOr<std::vector<StateRegion>> TrainingState::RegionsIn(Buffer& memory) const {
  std::vector<StateRegion> regions = Regions();
  int64_t total = 0;
  for (const StateRegion& region : regions) total += BytesOf(region);
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(device_.memory(), total, "state on the host");
  if (!buffer.ok()) return buffer.status();
  memory = *std::move(buffer);
  char* at = static_cast<char*>(memory.data());
  for (StateRegion& region : regions) {
    region.data = at;
    at += BytesOf(region);
  }
  return regions;
}

absl::Status TrainingState::Restore(const UseRegions& read) {
  const std::vector<StateRegion> regions = Regions();
  if (device_.kind() == DeviceKind::kCpu) return read(regions);
  Buffer memory;
  const absl::StatusOr<std::vector<StateRegion>> on_host = RegionsIn(memory);
  absl::Status status = on_host.ok() ? read(*on_host) : on_host.status();
  for (size_t i = 0; i < regions.size() && status.ok(); ++i) {
    status = device_.CopyNow((*on_host)[i].data, regions[i].data, BytesOf(regions[i]));
  }
  return status;
}

absl::Status TrainingState::Save(const UseRegions& write) const {
  const std::vector<StateRegion> regions = Regions();
  if (device_.kind() == DeviceKind::kCpu) return write(regions);
  Buffer memory;
  const absl::StatusOr<std::vector<StateRegion>> on_host = RegionsIn(memory);
  absl::Status status = on_host.status();
  for (size_t i = 0; i < regions.size() && status.ok(); ++i) {
    status = device_.CopyNow(regions[i].data, (*on_host)[i].data, BytesOf(regions[i]));
  }
  return status.ok() ? write(*on_host) : status;
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
      add(ranges[i], "/parameters",
          parameters().data<float>() + (apart() ? ranges[i].shard_begin : ranges[i].arena_begin),
          0);
    for (size_t s = 0; s < states.size(); ++s) {
      for (size_t i = begin; i < end; ++i)
        add(ranges[i], absl::StrCat("/optimizer/", states[s].name),
            states[s].values.data<float>() + ranges[i].shard_begin, static_cast<int>(s) + 1);
    }
  }
  return regions;
}

}  // namespace longspan
