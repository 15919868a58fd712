// Published models by name, as shapes that cost estimates are made of.
#ifndef LONGSPAN_RUNTIME_COST_KNOWN_MODELS_H_
#define LONGSPAN_RUNTIME_COST_KNOWN_MODELS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/model_config.h"

namespace longspan {

// The shape of what one token passes: of a mixture of experts, `ffn` counts the experts that it is
// sent to. InvalidArgument lists the models there are.
absl::StatusOr<ModelConfig> ModelByName(const std::string& name);
std::vector<std::string> KnownModelNames();

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_COST_KNOWN_MODELS_H_
