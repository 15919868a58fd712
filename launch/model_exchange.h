// Models between checkpoints and Hugging Face directories.
#ifndef LONGSPAN_LAUNCH_MODEL_EXCHANGE_H_
#define LONGSPAN_LAUNCH_MODEL_EXCHANGE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "checkpoint/checkpoint.h"

namespace longspan {

// Writes config.json and the weights, as f32 safetensors in shards of at most `shard_bytes`, into
// `directory`, which is made; and the file `tokenizer` where there is one. `metadata` is the
// checkpoint's; `read` fills regions of it, for one tensor after the other. AlreadyExists if a
// model is there.
absl::Status ExportModel(const std::string& metadata,
                         const std::function<absl::Status(const std::vector<StateRegion>&)>& read,
                         const std::string& tokenizer, const std::string& directory,
                         int64_t shard_bytes);

// Makes `run`, a new folder, with the directory's model as its checkpoint of step 0: parameters
// without optimizer state, for generate, show, diff and export. Training starts from a Hugging Face
// directory by model.init instead.
absl::Status ImportModel(const std::string& directory, const std::string& run);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_MODEL_EXCHANGE_H_
