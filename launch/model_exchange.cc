#include "launch/model_exchange.h"

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "parallel/transport/rank_threads.h"
#include "runtime/model/hugging_face.h"
#include "runtime/model/safetensors.h"
#include "runtime/train/run_state.h"

namespace longspan {
namespace {

// The run's data.max_length; what the family's positions say where it is not stated.
int64_t MaxLength(const RunState& run) {
  for (const ConfigEntry& entry : run.config) {
    int64_t length = 0;
    if (entry.key == "data.max_length" && absl::SimpleAtoi(entry.value, &length)) return length;
  }
  return run.model.positions > 0 ? run.model.positions : RunConfig().data.max_length;
}

absl::Status MakeDirectory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  return error ? absl::UnknownError(absl::StrCat("make ", path, ": ", error.message()))
               : absl::OkStatus();
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  absl::StatusOr<std::unique_ptr<File>> file = PosixFileSystem().Create(path);
  if (!file.ok()) return file.status();
  if (absl::Status status = (*file)->WriteAt(0, text.data(), static_cast<int64_t>(text.size()));
      !status.ok()) {
    return status;
  }
  return (*file)->Sync();
}

}  // namespace

absl::Status ExportModel(const std::string& metadata,
                         const std::function<absl::Status(const std::vector<StateRegion>&)>& read,
                         const std::string& tokenizer, const std::string& directory,
                         int64_t shard_bytes) {
  absl::StatusOr<RunState> run = RunStateFromJson(metadata);
  if (!run.ok()) return run.status();
  if (absl::Status status = MakeDirectory(directory); !status.ok()) return status;
  std::vector<SafetensorsSource> tensors;
  for (const ParameterSpec& spec : ParameterSpecs(run->model)) {
    // In order of use, as such files are.
    tensors.insert(tensors.begin(), {spec.name, spec.shape, [&read, spec](float* values) {
                                       return read({{"/parameters", spec.name, DType::kF32,
                                                     spec.shape, 0, spec.elements(), values}});
                                     }});
  }
  if (absl::Status status = WriteText(absl::StrCat(directory, "/config.json"),
                                      HuggingFaceConfig(run->model, MaxLength(*run)));
      !status.ok()) {
    return status;
  }
  if (absl::Status status = WriteSafetensors(directory, tensors, shard_bytes); !status.ok()) {
    return status;
  }
  if (!PosixFileSystem().Exists(tokenizer)) return absl::OkStatus();
  absl::StatusOr<std::string> bytes = PosixFileSystem().ReadAll(tokenizer);
  if (!bytes.ok()) return bytes.status();
  return WriteText(absl::StrCat(directory, "/tokenizer.model"), *bytes);
}

absl::Status ImportModel(const std::string& directory, const std::string& run) {
  absl::StatusOr<ModelConfig> model = ReadHuggingFaceConfig(directory);
  if (!model.ok()) return model.status();
  if (PosixFileSystem().Exists(run)) {
    return absl::AlreadyExistsError(absl::StrCat(run, " exists; give a new folder"));
  }
  RunState state;
  state.model = *model;
  state.schedule = "{}";
  const std::string tokenizer = absl::StrCat(directory, "/tokenizer.model");
  const bool has_tokenizer = PosixFileSystem().Exists(tokenizer);
  if (has_tokenizer) state.tokenizer_kind = "sentencepiece";
  return RunRanks(1, [&](Transport& transport, Device& device) -> absl::Status {
    const ParameterLayout layout(ParameterSpecs(*model), /*ranks=*/1);
    absl::StatusOr<Buffer> arena = Buffer::AllocateZeroed(
        device.memory(), layout.arena_elements() * SizeOf(DType::kF32), "parameters");
    if (!arena.ok()) return arena.status();
    const TensorView parameters = arena->Tensor(DType::kF32, {layout.arena_elements()});
    if (absl::Status status = ReadHuggingFaceWeights(directory, *model, layout, parameters);
        !status.ok()) {
      return status;
    }
    std::vector<StateRegion> regions;
    for (size_t i = 0; i < layout.specs().size(); ++i) {
      const ParameterSpec& spec = layout.specs()[i];
      regions.push_back({"/parameters", spec.name, DType::kF32, spec.shape, 0, spec.elements(),
                         parameters.data<float>() + layout.offset(static_cast<int64_t>(i))});
    }
    if (absl::Status status = MakeDirectory(run); !status.ok()) return status;
    if (has_tokenizer) {
      absl::StatusOr<std::string> bytes = PosixFileSystem().ReadAll(tokenizer);
      if (!bytes.ok()) return bytes.status();
      if (absl::Status status = WriteText(absl::StrCat(run, "/tokenizer.model"), *bytes);
          !status.ok()) {
        return status;
      }
    }
    CheckpointOptions options;
    options.directory = absl::StrCat(run, "/checkpoints");
    options.run_id = std::filesystem::path(run).filename().string();
    absl::StatusOr<std::unique_ptr<CheckpointWriter>> writer =
        CheckpointWriter::Open(PosixFileSystem(), options, transport);
    if (!writer.ok()) return writer.status();
    return (*writer)->Save(0, regions, state.ToJson()).status();
  });
}

}  // namespace longspan
