// Models as Hugging Face keeps them: config.json and the weights of a directory, for both families.
#ifndef LONGSPAN_RUNTIME_MODEL_HUGGING_FACE_H_
#define LONGSPAN_RUNTIME_MODEL_HUGGING_FACE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device/tensor_view.h"
#include "parallel/parameter_layout.h"
#include "runtime/model/model_config.h"

namespace longspan {

// config.json of LlamaForCausalLM or GPT2LMHeadModel. `max_length`: tokens, of a family whose
// weights do not say.
std::string HuggingFaceConfig(const ModelConfig& config, int64_t max_length);

// The model that DIRECTORY/config.json describes. InvalidArgument, naming the key, for what the two
// families here do not have (biases, scaled rotary positions, other activations, other models).
absl::StatusOr<ModelConfig> ReadHuggingFaceConfig(const std::string& directory);

// Fills the parameters of the model from the directory's safetensors. `arena`: f32,
// layout.arena_elements() elements, on the host; padding stays as it is. InvalidArgument where
// config.json, or a tensor, is not that of `config`: names what differs.
absl::Status ReadHuggingFaceWeights(const std::string& directory, const ModelConfig& config,
                                    const ParameterLayout& layout, TensorView arena);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_HUGGING_FACE_H_
