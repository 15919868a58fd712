// Generator: samples from a model, one token after the other, with a cache of keys and values.
#ifndef LONGSPAN_RUNTIME_MODEL_GENERATOR_H_
#define LONGSPAN_RUNTIME_MODEL_GENERATOR_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "runtime/model/model_config.h"
#include "runtime/model/weights.h"

namespace longspan {

struct SamplingOptions {
  int64_t max_tokens = 200;  // new ones
  double temperature = 0.8;  // 0: always the likeliest
  int64_t top_k = 50;        // 0: no limit
  uint64_t seed = 1;
  int32_t end_of_sequence = -1;  // stops there, -1: never
};

// Extends `prompt` (at least one token). `on_token` is called with each new token. Returns the new
// tokens. The same seed gives the same tokens. `weights` lie on the device: UploadWeights.
absl::StatusOr<std::vector<int32_t>> Generate(const ModelConfig& config, const Weights& weights,
                                              const std::vector<int32_t>& prompt,
                                              const SamplingOptions& options, Device& device,
                                              const std::function<void(int32_t)>& on_token);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_GENERATOR_H_
