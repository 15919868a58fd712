#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/device_choice.h"
#include "nlohmann/json.hpp"
#include "parallel/parameter_layout.h"
#include "runtime/data/tokenizer.h"
#include "runtime/model/generator.h"
#include "runtime/model/weights.h"
#include "runtime/train/run_state.h"

namespace longspan {
namespace {

struct Options {
  std::string run;
  std::string prompt = "The ";
  std::string prompt_file;
  SamplingOptions sampling;
  int threads = 0;
  std::string device = "auto";
  bool json = false;
};

// `run` is a run's folder (its newest checkpoint is taken) or one step directory.
absl::StatusOr<CheckpointInfo> FindCheckpoint(const std::string& run) {
  FileSystem& files = PosixFileSystem();
  if (files.Exists(run + "/COMMIT")) return ReadCheckpointInfo(files, run);
  if (!files.Exists(run + "/checkpoints")) {
    return absl::NotFoundError(
        absl::StrCat(run, ": neither a run's folder nor a checkpoint's directory"));
  }
  absl::StatusOr<std::vector<CheckpointInfo>> found = ListCheckpoints(files, run + "/checkpoints");
  if (!found.ok()) return found.status();
  if (found->empty())
    return absl::NotFoundError(absl::StrCat(run, "/checkpoints holds no committed checkpoint"));
  return found->front();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> FindTokenizer(const CheckpointInfo& checkpoint,
                                                         const std::string& kind) {
  std::string model;
  if (kind == "sentencepiece") {
    // RUN/checkpoints/STEP -> RUN/tokenizer.model
    const std::string path = checkpoint.directory + "/../../tokenizer.model";
    std::ifstream file(path, std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot read the run's tokenizer"));
    model = bytes.str();
  }
  if (kind != "byte" && kind != "sentencepiece") {
    return absl::FailedPreconditionError(
        "the run's data carried no tokenizer, so text can be neither read nor printed");
  }
  return CreateTokenizer(kind, model);
}

absl::Status Run(const Options& options) {
  absl::StatusOr<CheckpointInfo> checkpoint = FindCheckpoint(options.run);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<RunState> run = RunStateFromJson(checkpoint->metadata);
  if (!run.ok()) return run.status();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      FindTokenizer(*checkpoint, run->tokenizer_kind);
  if (!tokenizer.ok()) return tokenizer.status();

  std::string prompt = options.prompt;
  if (!options.prompt_file.empty()) {
    std::ifstream file(options.prompt_file, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file)
      return absl::NotFoundError(absl::StrCat(options.prompt_file, ": cannot read the prompt"));
    prompt = text.str();
  }
  std::vector<int32_t> ids;
  if (absl::Status status = (*tokenizer)->Encode(prompt, &ids); !status.ok()) return status;
  if (ids.empty()) ids.push_back((*tokenizer)->end_of_sequence());

  const int threads =
      options.threads > 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  const absl::StatusOr<DeviceChoice> choice = OpenDevice(options.device, 0, threads);
  if (!choice.ok()) return choice.status();
  Device* const device = choice->device.get();
  const ParameterLayout layout(ParameterSpecs(run->model), /*ranks=*/1);
  absl::StatusOr<Buffer> arena = Buffer::AllocateZeroed(
      device->memory(), layout.arena_elements() * SizeOf(DType::kF32), "parameters");
  if (!arena.ok()) return arena.status();
  TensorView parameters = arena->Tensor(DType::kF32, {layout.arena_elements()});
  std::vector<StateRegion> regions;
  for (size_t i = 0; i < layout.specs().size(); ++i) {
    const ParameterSpec& spec = layout.specs()[i];
    regions.push_back({"/parameters", spec.name, DType::kF32, spec.shape, 0, spec.elements(),
                       parameters.data<float>() + layout.offset(static_cast<int64_t>(i))});
  }
  if (absl::Status status = RestoreRegions(PosixFileSystem(), *checkpoint, regions); !status.ok())
    return status;

  if (device->kind() != DeviceKind::kCpu) {
    Stream stream = device->CreateStream("upload");
    absl::StatusOr<Buffer> uploaded = UploadWeights(parameters, stream);
    if (!uploaded.ok()) return uploaded.status();
    arena = std::move(uploaded);
    parameters = arena->Tensor(ComputeTypeOf(*device), {layout.arena_elements()});
  }

  SamplingOptions sampling = options.sampling;
  sampling.end_of_sequence = (*tokenizer)->end_of_sequence();
  // Text is printed as it comes. A token may end inside a character, so what is new is found by
  // decoding everything.
  std::vector<int32_t> tokens;
  std::string printed;
  const auto print = [&](int32_t token) {
    tokens.push_back(token);
    if (options.json) return;
    absl::StatusOr<std::string> text = (*tokenizer)->Decode(tokens);
    if (!text.ok() || text->size() < printed.size() ||
        text->compare(0, printed.size(), printed) != 0)
      return;
    std::fwrite(text->data() + printed.size(), 1, text->size() - printed.size(), stdout);
    std::fflush(stdout);
    printed = *std::move(text);
  };
  if (!options.json) std::fputs(prompt.c_str(), stdout);
  absl::StatusOr<std::vector<int32_t>> generated = Generate(
      run->model, WeightsIn(run->model, layout, parameters), ids, sampling, *device, print);
  if (!generated.ok()) return generated.status();
  if (!options.json) {
    std::fputs("\n", stdout);
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> text = (*tokenizer)->Decode(*generated);
  if (!text.ok()) return text.status();
  const nlohmann::json object = {{"checkpoint", checkpoint->directory},
                                 {"step", run->step},
                                 {"prompt", prompt},
                                 {"text", *text},
                                 {"tokens", *generated}};
  std::puts(object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  return absl::OkStatus();
}

}  // namespace

void RegisterGenerateCommand(const Command& root, SelectedCommand* selected) {
  auto options = std::make_shared<Options>();
  const Command generate =
      root.AddCommand("generate", "Sample text from a run's newest checkpoint");
  generate.AddOption("RUN", options->run, "a run's folder, or one checkpoint's directory")
      .Required();
  const CommandOption prompt =
      generate.AddOption("--prompt", options->prompt, "text to continue").ShowDefault();
  generate.AddOption("--prompt-file", options->prompt_file, "file with the text to continue")
      .Excludes(prompt);
  generate.AddOption("--tokens", options->sampling.max_tokens, "new tokens at most")
      .Positive()
      .ShowDefault();
  generate
      .AddOption("--temperature", options->sampling.temperature, "0: always the likeliest token")
      .ShowDefault()
      .NonNegative();
  generate.AddOption("--top-k", options->sampling.top_k, "choose among the k likeliest; 0: all")
      .NonNegative()
      .ShowDefault();
  generate.AddOption("--seed", options->sampling.seed, "of the sampling").ShowDefault();
  generate.AddOption("--threads", options->threads, "0: all cores").NonNegative().ShowDefault();
  generate.AddOption("--device", options->device, "auto, cpu or cuda")
      .OneOf({"auto", "cpu", "cuda"})
      .ShowDefault();
  generate.AddFlag("--json", options->json, "print an object with text and token ids");
  generate.Footer(
      "Example:\n  longspan generate runs/quickstart --prompt \"#include <\" --tokens 300 "
      "--temperature 0.7");
  generate.OnChosen([selected, options] { *selected = [options] { return Run(*options); }; });
}

}  // namespace longspan
