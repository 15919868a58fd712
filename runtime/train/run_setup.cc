#include "runtime/train/run_setup.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "runtime/cost/cost_file.h"
#include "runtime/model/hugging_face.h"
#include "runtime/train/agreement.h"

namespace longspan {
namespace {

// One core of a few years ago, and memory that ranks of one machine share.
constexpr double kNominalFlopsPerSecond = 5e10;
constexpr double kNominalBytesPerSecond = 5e9;

absl::Status WriteFile(const std::string& path, const std::string& contents) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << contents;
  file.close();
  return file ? absl::OkStatus()
              : absl::PermissionDeniedError(absl::StrCat(path, ": cannot write"));
}

absl::Status MakeFolder(const RunFolder& folder, const std::string& resume,
                        const std::string& config_toml, const Dataset& dataset,
                        const std::string& marker) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (resume.empty() && fs::exists(folder.path, error) && !fs::is_empty(folder.path, error)) {
    return absl::AlreadyExistsError(
        absl::StrCat(folder.path,
                     " already holds a run: continue it with --resume auto, or choose "
                     "another name with --set run.name=NAME"));
  }
  fs::create_directories(folder.path, error);
  if (error)
    return absl::PermissionDeniedError(
        absl::StrCat(folder.path, ": cannot make the run's folder: ", error.message()));
  if (absl::Status status = WriteFile(folder.config(), config_toml); !status.ok()) return status;
  absl::StatusOr<std::string> tokenizer = dataset.tokenizer();
  if (!tokenizer.ok()) return tokenizer.status();
  if (!tokenizer->empty()) {
    if (absl::Status status = WriteFile(folder.tokenizer(), *tokenizer); !status.ok())
      return status;
  }
  return WriteFile(marker, "");
}

}  // namespace

RunFolder FolderOf(const RunConfig& config) {
  return {config.run.directory + "/" + config.run.name};
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config) {
  if (config.data.sources.empty()) {
    return absl::InvalidArgumentError(
        "data.sources is empty: name a token data set, such as sources = [{ path = "
        "\"data/corpus.h5\" }]; "
        "longspan data build makes one");
  }
  DatasetOptions options;
  options.sources = config.data.sources;
  options.validation_share = config.data.validation.share;
  options.validation_path = config.data.validation.path;
  options.max_length = config.data.max_length;
  options.drop_long_documents = config.data.long_documents == "drop";
  options.seed = static_cast<uint64_t>(config.run.seed);
  return Dataset::Open(options);
}

absl::StatusOr<ModelConfig> ModelOf(const RunConfig& config, const Dataset& dataset) {
  const absl::StatusOr<ModelFamily> family = ModelFamilyFromName(config.model.family);
  if (!family.ok()) return family.status();
  ModelConfig model;
  model.family = *family;
  model.layers = static_cast<int>(config.model.layers);
  model.width = config.model.width;
  model.heads = static_cast<int>(config.model.heads);
  model.kv_heads = static_cast<int>(config.model.kv_heads);
  model.ffn = config.model.ffn;
  model.vocab = config.model.vocab;
  model.rope_base = config.model.rope_base;
  model.tie_embeddings = config.model.tie_embeddings;
  model.window = config.attention.window;
  model.positions = model.family == ModelFamily::kGpt2 ? config.data.max_length : 0;
  if (model.vocab == 0) model.vocab = dataset.vocabulary();
  if (model.vocab == 0) {
    return absl::InvalidArgumentError(
        "model.vocab = 0 takes the vocabulary from the data, but these data sets do not state one: "
        "set model.vocab");
  }
  if (dataset.vocabulary() > model.vocab) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.vocab = ", model.vocab, ", but the data has a vocabulary of ",
                     dataset.vocabulary(), ": use model.vocab = 0 or at least that"));
  }
  if (config.model.init != "random") {
    // What no key states, the weights were trained with.
    absl::StatusOr<ModelConfig> given = ReadHuggingFaceConfig(config.model.init);
    if (!given.ok()) return given.status();
    model.norm_eps = given->norm_eps;
  }
  if (absl::Status status = model.Check(); !status.ok()) return status;
  return model;
}

OptimizerConfig OptimizerOf(const RunConfig& config) {
  if (config.optimizer.kind == "sgd")
    return SgdConfig{config.optimizer.momentum, config.optimizer.weight_decay};
  return AdamWConfig{config.optimizer.betas[0], config.optimizer.betas[1], config.optimizer.eps,
                     config.optimizer.weight_decay};
}

DType GradientWireOf(const RunConfig& config) {
  return config.optimizer.wire == "bf16" ? DType::kBF16 : DType::kF32;
}

AttentionOptions AttentionOf(const RunConfig& config, DeviceKind device) {
  const bool narrow = config.attention.wire == "bf16" || device == DeviceKind::kCuda;
  return {.wire = narrow ? DType::kBF16 : DType::kF32, .window = config.attention.window};
}

absl::StatusOr<HeadParallelism> HeadsOf(const RunConfig& config, const ModelConfig& model,
                                        int ranks, int ranks_per_node) {
  const HeadLimit limit = config.attention.head_parallel;
  HeadParallelism heads{.kv_heads = model.kv_heads,
                        .queries_per_kv = model.heads / model.kv_heads,
                        .most = static_cast<int>(limit.ranks),
                        .widest = !limit.automatic()};
  if (limit.ranks > 1) {
    const std::string what = absl::StrCat("attention.head_parallel = ", limit.ranks);
    if (model.window > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ", but attention.window = ", model.window,
                       ": heads are split in attention without a window alone; set "
                       "attention.head_parallel to 1 or \"auto\", or attention.window to 0"));
    }
    if (heads.Widths().size() == 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ", but model.kv_heads = ", model.kv_heads,
                       " has no divisor from 2 to ", limit.ranks,
                       ", and each rank takes as many of them: set attention.head_parallel to 1, "
                       "\"auto\" or at least such a divisor"));
    }
  }
  const int on_node = ranks_per_node > 0 ? std::min(ranks, ranks_per_node) : ranks;
  heads.most = limit.automatic() ? on_node : std::min(heads.most, on_node);
  return heads;
}

CostModel FixedCostModel(const ModelConfig& model) {
  CostModel cost =
      AnalyticCostModel(model.MatmulParameters(), model.layers, model.width, model.kv_width(),
                        kNominalFlopsPerSecond, kNominalBytesPerSecond);
  cost.attention_window = model.window;
  return cost;
}

absl::StatusOr<PlanRequest> PlanRequestOf(const RunConfig& config, const ModelConfig& model,
                                          int ranks, int ranks_on_node) {
  PlanRequest request;
  request.ranks = ranks;
  request.micro_batch_tokens = config.batch.micro_batch_tokens;
  request.ranks_per_node = static_cast<int>(
      config.planner.ranks_per_node > 0 ? config.planner.ranks_per_node : ranks_on_node);
  const absl::StatusOr<HeadParallelism> heads =
      HeadsOf(config, model, ranks, request.ranks_per_node);
  if (!heads.ok()) return heads.status();
  // A refit begins with the fixed model.
  if (config.planner.cost == "fixed" || config.planner.cost == "refit") {
    request.cost = FixedCostModel(model);
    request.cost.heads = *heads;
    return request;
  }
  absl::StatusOr<CostModel> cost = ReadCostFile(config.planner.cost);
  if (!cost.ok()) {
    return absl::Status(
        cost.status().code(),
        absl::StrCat("planner.cost: ", std::string(cost.status().message()),
                     "; it is \"fixed\", \"refit\" or a file that longspan profile made"));
  }
  request.cost = *std::move(cost);
  request.cost.attention_window = model.window;
  request.cost.heads = *heads;
  // Speeds were measured for another number of ranks.
  if (request.cost.rank_speeds.size() != static_cast<size_t>(ranks)) {
    request.cost.rank_speeds.clear();
  }
  return request;
}

absl::Status CheckCapacity(const RunConfig& config, const Dataset& dataset, int ranks) {
  const int64_t longest = dataset.longest_sequence(), capacity = config.batch.micro_batch_tokens;
  if (longest <= capacity * ranks) return absl::OkStatus();
  const int64_t needed = ((longest + ranks - 1) / ranks + 1) / 2 * 2;
  return absl::InvalidArgumentError(absl::StrCat(
      "the longest sequence has ", longest, " tokens, but ", ranks, ranks == 1 ? " rank" : " ranks",
      " of ", capacity, " tokens hold ", capacity * ranks, ": use --set batch.micro_batch_tokens=",
      needed, ", more ranks, or (for a new run) a smaller data.max_length"));
}

absl::Status PrepareFolder(const RunFolder& folder, const std::string& resume,
                           const std::string& config_toml, const Dataset& dataset,
                           Transport& transport) {
  // The marker's name is new at every start, so that a left-over of another one does not count.
  const int64_t now = std::chrono::system_clock::now().time_since_epoch().count();
  absl::StatusOr<std::string> marker =
      transport.BroadcastBytes(absl::StrCat(folder.path, "/.start-", now), /*root=*/0);
  if (!marker.ok()) return marker.status();
  absl::Status mine;
  if (transport.rank() == 0) mine = MakeFolder(folder, resume, config_toml, dataset, *marker);
  if (absl::Status status = Agree(transport, mine); !status.ok()) return status;

  std::error_code error;
  // Listing first makes a network file system look again.
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path, error))
    break;
  if (!std::filesystem::exists(*marker, error)) {
    mine = absl::NotFoundError(
        absl::StrCat(folder.path,
                     " is not the folder that rank 0 sees: run.directory must be on a "
                     "file system that all nodes share"));
  }
  const absl::Status agreed = Agree(transport, mine);
  if (transport.rank() == 0) std::filesystem::remove(*marker, error);
  return agreed;
}

}  // namespace longspan
