// Weights: the tensors of a model by their role, as views into a flat arena. The same views serve
// parameters and gradients.
#ifndef LONGSPAN_RUNTIME_MODEL_WEIGHTS_H_
#define LONGSPAN_RUNTIME_MODEL_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
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

// `arena`: f32, layout.arena_elements() elements.
Weights WeightsIn(const ModelConfig& config, const ParameterLayout& layout, TensorView arena);

// Fills the arena: normal(0, 0.02), residual projections divided by sqrt(2 * layers), norms 1,
// biases and padding 0. Each value depends on (seed, tensor name, element) alone. Queued on
// `stream`.
void InitializeWeights(const ModelConfig& config, const ParameterLayout& layout, uint64_t seed,
                       TensorView arena, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_WEIGHTS_H_
