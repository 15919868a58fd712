#include "runtime/train/memory_estimate.h"

#include <algorithm>

#include "checkpoint/lazy_writer.h"
#include "kernels/gemm.h"
#include "runtime/model/transformer.h"
#include "runtime/model/weights.h"
#include "runtime/train/run_setup.h"
#include "runtime/train/step_inputs.h"

namespace longspan {
namespace {

int64_t Sum(const std::map<std::string, int64_t>& bytes) {
  int64_t sum = 0;
  for (const auto& [tag, part] : bytes) sum += part;
  return sum;
}

}  // namespace

int64_t MemoryEstimate::device_bytes() const { return Sum(device); }
int64_t MemoryEstimate::host_bytes() const { return Sum(host); }

int64_t MemoryEstimate::Of(const std::string& tag) const {
  int64_t bytes = 0;
  for (const auto* side : {&device, &host}) {
    if (const auto found = side->find(tag); found != side->end()) bytes += found->second;
  }
  return bytes;
}

void RowsOfRanks::AddStep(const StepPlan& plan) {
  for (size_t rank = 0; rank < room_.size(); ++rank) {
    int64_t rows = 0;
    for (const MicroBatch& micro_batch : plan.micro_batches[rank]) rows += micro_batch.tokens();
    most_rows_ = std::max(most_rows_, rows);
    if (rows > room_[rank]) room_[rank] = StepBuffers::RoomFor(rows);
  }
}

int64_t RowsOfRanks::most_room() const {
  return room_.empty() ? 0 : *std::max_element(room_.begin(), room_.end());
}

MemoryEstimate EstimateMemory(const RunConfig& config, const ModelConfig& model,
                              const ParameterLayout& layout, const RowsOfRanks& steps,
                              const RowsOfRanks& evaluation, DeviceKind kind) {
  const bool gpu = kind != DeviceKind::kCpu;
  MemoryEstimate estimate;
  std::map<std::string, int64_t>& device = gpu ? estimate.device : estimate.host;
  std::map<std::string, int64_t>& host = estimate.host;
  // What host and device both work on is there twice on a GPU.
  const auto add_mirrored = [&](const char* tag, int64_t bytes) {
    device[tag] += bytes;
    if (gpu) host[tag] += bytes;
  };
  const int64_t f32 = SizeOf(DType::kF32), arena = layout.arena_elements(),
                shard = layout.shard_elements();
  const int64_t moments = config.optimizer.kind == "sgd" ? 1 : 2;

  device["parameters"] = arena * SizeOf(ComputeTypeOf(kind)) + (gpu ? shard * f32 : 0);
  device["gradients"] = arena * f32;
  if (GradientWireOf(config) == DType::kBF16 && shard < arena)
    device["gradients"] += layout.largest_bucket() * SizeOf(DType::kBF16);
  device["optimizer"] = moments * shard * f32;
  add_mirrored("optimizer", (1 + moments) * SizeOf(DType::kU64));  // content sums
  const Transformer::Sizes sizes =
      Transformer::SizesOf(model, config.batch.micro_batch_tokens, /*for_training=*/true, kind);
  device["activations"] = sizes.activation_bytes;
  device["scratch"] = sizes.scratch_bytes;
  add_mirrored("losses", (steps.most_room() + evaluation.most_room()) * f32);
  if (gpu) device["operators"] = kGpuGemmWorkspaceBytes;

  // A step's tokens are read while the one before computes, from pinned memory on a GPU.
  const int64_t token = 3 * SizeOf(DType::kI32);
  host["tokens"] = token * (gpu ? steps.most_rows() + steps.most_room() + evaluation.most_room()
                                : 2 * steps.most_rows() + evaluation.most_rows());
  const int64_t state = (1 + moments) * shard * f32;
  if (config.checkpoint.mode == "lazy") {
    host["checkpoint pool"] = LazyPoolBytes({.pool_bytes = config.checkpoint.pool << 20}, state, 1);
  } else if (gpu) {
    host["state on the host"] = state;  // while it is saved
  }
  return estimate;
}

}  // namespace longspan
