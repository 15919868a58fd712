// ModelConfig: the shape of a transformer, and what follows from it (parameter and operation
// counts).
#ifndef LONGSPAN_RUNTIME_MODEL_MODEL_CONFIG_H_
#define LONGSPAN_RUNTIME_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/parameter_layout.h"

namespace longspan {

enum class ModelFamily {
  kLlama,  // RMSNorm, RoPE, grouped-query attention, SwiGLU, no biases
  kGpt2,   // LayerNorm, learned positions, GELU, biases, output tied to the embedding
};

absl::StatusOr<ModelFamily> ModelFamilyFromName(const std::string& name);
const char* Name(ModelFamily family);

struct ModelConfig {
  ModelFamily family = ModelFamily::kLlama;
  int layers = 6;
  int64_t width = 384;
  int heads = 6;
  int kv_heads = 6;
  int64_t ffn = 1024;
  int64_t vocab = 0;
  double rope_base = 10000.0;
  bool tie_embeddings = false;
  int64_t window = 0;     // positions that a query sees, its own included; 0: all before it
  int64_t positions = 0;  // GPT-2: rows of the position table
  float norm_eps = 1e-5f;

  int64_t head_dim() const { return width / heads; }
  int64_t kv_width() const { return kv_heads * head_dim(); }
  // Columns of the fused query, key and value projection.
  int64_t qkv_width() const { return width + 2 * kv_width(); }
  // Columns of the first feed-forward product: gate and up for Llama.
  int64_t ffn_in_width() const { return family == ModelFamily::kLlama ? 2 * ffn : ffn; }
  bool tied() const { return family == ModelFamily::kGpt2 || tie_embeddings; }

  // InvalidArgument names the configuration key that does not fit.
  absl::Status Check() const;
  // Parameters that take part in matrix products: the output head included, embedding look-ups not.
  int64_t MatmulParameters() const;
  // Operations of training on one document of `length` tokens, counted as "causal":
  // length * (6 * MatmulParameters + 6 * layers * width * length), less what lies outside of
  // windows.
  double TrainingFlops(int64_t length) const;
};

// All tensors in reverse order of use, named and shaped as Hugging Face does: (out, in) matrices
// for Llama, (in, out) for GPT-2's Conv1D.
std::vector<ParameterSpec> ParameterSpecs(const ModelConfig& config);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_MODEL_CONFIG_H_
