#include "runtime/train/dry_run.h"

#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cross_entropy.h"
#include "nlohmann/json.hpp"
#include "parallel/planner.h"
#include "parallel/ring_traffic.h"
#include "runtime/metrics/run_log.h"
#include "runtime/train/run_schedule.h"
#include "runtime/train/run_setup.h"

namespace longspan {
namespace {

constexpr int64_t kSampledSteps = 20;

struct Estimate {
  int64_t parameters = 0, buckets = 0;
  int64_t parameter_bytes = 0, optimizer_bytes = 0, activation_bytes = 0, checkpoint_bytes = 0;
  int64_t steps = 0, sequences = 0, tokens = 0, longest = 0, shared = 0, idle_ranks = 0,
          micro_batches = 0;
  std::map<int64_t, int64_t> groups_by_width;
  double worst_gap = 0, mean_gap = 0;
  int64_t ring_bytes = 0;      // of all ranks, a step, mean
  int64_t gradient_bytes = 0;  // a rank, a step: reduce-scatter and all-gather
};

absl::StatusOr<Estimate> Sample(const RunConfig& config, const Dataset& dataset,
                                const ModelConfig& model, int ranks) {
  const ParameterLayout layout(ParameterSpecs(model), ranks);
  Estimate e;
  e.parameters = layout.tensor_elements();
  e.buckets = static_cast<int64_t>(layout.buckets().size());
  e.parameter_bytes = 2 * 4 * layout.arena_elements();
  const DType gradient_wire = GradientWireOf(config);
  if (gradient_wire == DType::kBF16 && ranks > 1)
    e.parameter_bytes += SizeOf(gradient_wire) * layout.largest_bucket();
  const int64_t moments = config.optimizer.kind == "sgd" ? 1 : 2;
  e.optimizer_bytes = moments * 4 * layout.shard_elements();
  const int64_t scratch = 4 * config.batch.micro_batch_tokens *
                              (3 * model.width + model.ffn + std::max(model.ffn, model.width) +
                               model.qkv_width() + model.heads) +
                          4 * CrossEntropyChunkRows(model.vocab) * model.vocab;
  e.activation_bytes = config.batch.micro_batch_tokens * model.ActivationBytesPerToken() + scratch;
  e.checkpoint_bytes = (1 + moments) * 4 * layout.tensor_elements() / ranks;
  e.gradient_bytes =
      (SizeOf(gradient_wire) + SizeOf(DType::kF32)) * layout.arena_elements() * (ranks - 1) / ranks;

  absl::StatusOr<std::unique_ptr<Planner>> planner = CreatePlanner(config.planner.policy);
  if (!planner.ok()) return planner.status();
  absl::StatusOr<PlanRequest> request = PlanRequestOf(config, model, ranks, 0);
  if (!request.ok()) return request.status();
  DataCursor cursor = dataset.Begin();
  for (; e.steps < std::min(kSampledSteps, config.run.steps); ++e.steps) {
    request->lengths.clear();
    for (const SequenceRef& sequence : dataset.NextBatch(cursor, config.batch.tokens))
      request->lengths.push_back(sequence.length);
    absl::StatusOr<StepPlan> plan = (*planner)->Plan(*request);
    if (!plan.ok()) return plan.status();
    if (absl::Status status = Validate(*plan); !status.ok()) return status;
    e.sequences += static_cast<int64_t>(plan->lengths.size());
    e.tokens += plan->total_tokens();
    e.longest = std::max(e.longest, *std::max_element(plan->lengths.begin(), plan->lengths.end()));
    e.shared += static_cast<int64_t>(plan->groups.size());
    for (const SequenceGroup& group : plan->groups)
      ++e.groups_by_width[static_cast<int64_t>(group.ranks.size())];
    for (const auto& list : plan->micro_batches) {
      e.idle_ranks += list.empty() ? 1 : 0;
      e.micro_batches += static_cast<int64_t>(list.size());
    }
    e.worst_gap = std::max(e.worst_gap, plan->certificate.gap);
    e.mean_gap += plan->certificate.gap;
    for (int64_t bytes :
         RingBytesByRank(*plan,
                         AttentionOf(config, config.run.device == "cuda" ? DeviceKind::kCuda
                                                                         : DeviceKind::kCpu),
                         {model.heads, model.kv_heads, model.head_dim()}))
      e.ring_bytes += model.layers * bytes;
  }
  e.mean_gap /= static_cast<double>(e.steps);
  e.ring_bytes /= e.steps;
  return e;
}

}  // namespace

absl::StatusOr<std::string> DryRun(const RunConfig& config, int ranks, bool json) {
  absl::StatusOr<std::unique_ptr<Dataset>> dataset = OpenDataset(config);
  if (!dataset.ok()) return dataset.status();
  absl::StatusOr<ModelConfig> model = ModelOf(config, **dataset);
  if (!model.ok()) return model.status();
  if (absl::Status status = ScheduleOf(config).status(); !status.ok()) return status;
  if (absl::Status status = CheckCapacity(config, **dataset, ranks); !status.ok()) return status;
  absl::StatusOr<Estimate> estimate = Sample(config, **dataset, *model, ranks);
  if (!estimate.ok()) return estimate.status();
  const Estimate& e = *estimate;
  const int64_t total_bytes = e.parameter_bytes + e.optimizer_bytes + e.activation_bytes;
  if (json) {
    nlohmann::json widths = nlohmann::json::object();
    for (const auto& [width, count] : e.groups_by_width) widths[absl::StrCat(width)] = count;
    const nlohmann::json object = {{"ranks", ranks},
                                   {"estimate", true},
                                   {"parameters", e.parameters},
                                   {"buckets", e.buckets},
                                   {"bytes_per_rank",
                                    {{"parameters_and_gradients", e.parameter_bytes},
                                     {"optimizer", e.optimizer_bytes},
                                     {"activations_and_scratch", e.activation_bytes},
                                     {"checkpoint_file", e.checkpoint_bytes}}},
                                   {"sampled_steps", e.steps},
                                   {"sequences", e.sequences},
                                   {"tokens", e.tokens},
                                   {"longest", e.longest},
                                   {"shared_sequences", e.shared},
                                   {"groups_by_width", widths},
                                   {"mean_gap", e.mean_gap},
                                   {"worst_gap", e.worst_gap},
                                   {"ring_bytes_per_step", e.ring_bytes},
                                   {"gradient_bytes_per_rank_per_step", e.gradient_bytes}};
    return object.dump(2) + "\n";
  }
  std::string widths;
  for (const auto& [width, count] : e.groups_by_width)
    absl::StrAppend(&widths, widths.empty() ? "" : ", ", count, " of width ", width);
  std::string text = absl::StrFormat(
      "dry run for %d ranks; all figures are estimates, nothing was trained or written\n", ranks);
  absl::StrAppendFormat(&text, "model        %s parameters in %d buckets\n",
                        ShortCount(static_cast<double>(e.parameters)), e.buckets);
  absl::StrAppendFormat(&text,
                        "memory       %s a rank: parameters and gradients %s, optimizer %s, "
                        "activations and scratch %s\n",
                        ShortBytes(static_cast<double>(total_bytes)),
                        ShortBytes(static_cast<double>(e.parameter_bytes)),
                        ShortBytes(static_cast<double>(e.optimizer_bytes)),
                        ShortBytes(static_cast<double>(e.activation_bytes)));
  absl::StrAppendFormat(&text, "checkpoint   %s a rank\n",
                        ShortBytes(static_cast<double>(e.checkpoint_bytes)));
  absl::StrAppendFormat(
      &text, "batch        %.0f sequences, %s targets a step, longest %d tokens (first %d steps)\n",
      static_cast<double>(e.sequences) / static_cast<double>(e.steps),
      ShortCount(static_cast<double>(e.tokens) / static_cast<double>(e.steps)), e.longest, e.steps);
  absl::StrAppendFormat(&text, "groups       %s\n",
                        widths.empty() ? "none: every sequence fits one rank" : widths);
  absl::StrAppendFormat(
      &text,
      "balance      planned makespan %.1f%% over the lower bound on average, %.1f%% at worst\n",
      100 * e.mean_gap, 100 * e.worst_gap);
  absl::StrAppendFormat(
      &text,
      "traffic      rings %s a step over all ranks; gradients and parameters %s a step and rank\n",
      ShortBytes(static_cast<double>(e.ring_bytes)),
      ShortBytes(static_cast<double>(e.gradient_bytes)));
  return text;
}

}  // namespace longspan
