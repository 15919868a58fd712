// Weights: the tensors of a model by their role, as views into a flat arena. The same views serve
// parameters and gradients.
#ifndef LONGSPAN_RUNTIME_MODEL_WEIGHTS_H_
#define LONGSPAN_RUNTIME_MODEL_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "kernels/device/thread_pool.h"
#include "parallel/parameter_layout.h"
#include "runtime/model/model_config.h"

namespace longspan {

// y = x W^T + b with W (out, in), or y = x W + b with W (in, out) when `input_major` (GPT-2).
// `bias` may be empty.
struct LinearWeights {
  TensorView weight;
  TensorView bias;
  bool input_major = false;
};

struct NormWeights {
  TensorView weight;  // (width)
  TensorView bias;    // (width), empty for RMSNorm
};

struct LayerWeights {
  NormWeights attention_norm;
  LinearWeights qkv;  // queries, keys, values side by side
  LinearWeights out;
  NormWeights ffn_norm;
  LinearWeights ffn_in;  // gate and up side by side, or GPT-2's c_fc
  LinearWeights ffn_out;
};

struct Weights {
  TensorView embedding;  // (vocab, width)
  TensorView positions;  // (positions, width), GPT-2 only
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  TensorView head;  // (vocab, width); the embedding itself where tied
};

// What a device computes in: the dtype of activations and of the weights beside them. f32 on the
// CPU, bf16 on a GPU; gradients of weights are f32 everywhere.
DType ComputeTypeOf(DeviceKind kind);
inline DType ComputeTypeOf(const Device& device) { return ComputeTypeOf(device.kind()); }

// `arena`: layout.arena_elements() elements, f32, or on a GPU bf16 to compute with.
Weights WeightsIn(const ModelConfig& config, const ParameterLayout& layout, TensorView arena);

// Fills the arena: normal(0, 0.02), residual projections divided by sqrt(2 * layers), norms 1,
// biases and padding 0. Each value depends on (seed, tensor name, element) alone. `arena`: f32, in
// host memory.
void InitializeWeights(const ModelConfig& config, const ParameterLayout& layout, uint64_t seed,
                       TensorView arena, ThreadPool& threads);

// What Transformer computes with on the stream's device, from f32 values in host memory; tag
// "parameters". Waits for the stream.
absl::StatusOr<Buffer> UploadWeights(TensorView arena, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_WEIGHTS_H_
