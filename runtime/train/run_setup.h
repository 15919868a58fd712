// Set-up of a run: data, model shape, run folder. What training and a dry run have in common.
#ifndef LONGSPAN_RUNTIME_TRAIN_RUN_SETUP_H_
#define LONGSPAN_RUNTIME_TRAIN_RUN_SETUP_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "optim/sharded_optimizer.h"
#include "parallel/planner.h"
#include "parallel/ring_attention.h"
#include "parallel/transport/transport.h"
#include "runtime/data/dataset.h"
#include "runtime/metrics/run_log.h"
#include "runtime/model/model_config.h"
#include "runtime/train/run_config.h"

namespace longspan {

// Where everything of a run lies.
struct RunFolder {
  std::string path;  // DIRECTORY/NAME
  std::string checkpoints() const { return path + "/checkpoints"; }
  std::string metrics() const { return path + "/metrics.jsonl"; }
  std::string norms() const { return path + "/norms.h5"; }
  std::string log() const { return path + "/log.txt"; }
  std::string config() const { return path + "/config.toml"; }
  std::string tokenizer() const { return path + "/tokenizer.model"; }
};
RunFolder FolderOf(const RunConfig& config);

// Not collective: every rank opens the data for itself. InvalidArgument when no source is
// configured.
absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config);

// The model's shape, with the vocabulary taken from the data where the configuration leaves it
// open. InvalidArgument when the data has more tokens than the model.
absl::StatusOr<ModelConfig> ModelOf(const RunConfig& config, const Dataset& dataset);

OptimizerConfig OptimizerOf(const RunConfig& config);
// What gradients travel as between ranks: f32 or bf16.
DType GradientWireOf(const RunConfig& config);
// On devices of this kind.
AttentionOptions AttentionOf(const RunConfig& config, DeviceKind device);
// Which groups may split heads on nodes of `ranks_per_node` ranks, 0: all on one node. A number of
// ranks that no group can ever be split by is InvalidArgument.
absl::StatusOr<HeadParallelism> HeadsOf(const RunConfig& config, const ModelConfig& model,
                                        int ranks, int ranks_per_node);
// From operation counts, for a nominal core: plans depend on the ratios alone.
CostModel FixedCostModel(const ModelConfig& model);
// Of every step of a run on `ranks` ranks, without lengths. Errors of a cost file name it.
absl::StatusOr<PlanRequest> PlanRequestOf(const RunConfig& config, const ModelConfig& model,
                                          int ranks, int ranks_on_node);

// A sequence that no group can hold is known before training: InvalidArgument with the --set that
// can.
absl::Status CheckCapacity(const RunConfig& config, const Dataset& dataset, int ranks);

// Collective. Rank 0 makes the folder (refused when it holds a run and `resume` is empty) and
// writes config.toml and the tokenizer; then every rank looks for a marker of this start, so a path
// that one node does not see is an error with its name.
absl::Status PrepareFolder(const RunFolder& folder, const std::string& resume,
                           const std::string& config_toml, const Dataset& dataset,
                           Transport& transport);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RUN_SETUP_H_
