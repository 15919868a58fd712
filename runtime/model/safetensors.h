// Safetensors: the tensor files of Hugging Face. A file is a u64 length, that many bytes of JSON
// (name -> dtype, shape, data_offsets), then the tensors' bytes. A model is one file,
// model.safetensors, or several that model.safetensors.index.json lists.
#ifndef LONGSPAN_RUNTIME_MODEL_SAFETENSORS_H_
#define LONGSPAN_RUNTIME_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longspan {

struct SafetensorsEntry {
  std::string path;   // of the file
  std::string dtype;  // "F32", "BF16", "F16", ...
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes of the file
};

// All tensors of a model's directory, by name. NotFound if there is none in it; DataLoss, with file
// and reason, for a file that contradicts itself.
absl::StatusOr<std::map<std::string, SafetensorsEntry>> ListSafetensors(
    const std::string& directory);

// Reads a tensor of F32, BF16 or F16 as f32; `values` has room for its elements. InvalidArgument
// for other dtypes.
absl::Status ReadSafetensor(const SafetensorsEntry& entry, float* values);

// One f32 tensor to be written.
struct SafetensorsSource {
  std::string name;
  std::vector<int64_t> shape;
  // Fills `values` with the tensor's elements; called once, when its turn has come.
  std::function<absl::Status(float* values)> read;
};

// Writes a model into an existing directory that holds none yet: one file, or shards of at most
// `shard_bytes` each (a larger tensor has one to itself) with their index. One tensor is in memory
// at a time. AlreadyExists if one of the files is there.
absl::Status WriteSafetensors(const std::string& directory,
                              const std::vector<SafetensorsSource>& tensors, int64_t shard_bytes);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_SAFETENSORS_H_
