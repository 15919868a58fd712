#include "runtime/train/dry_run.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "parallel/planner.h"
#include "parallel/ring_traffic.h"
#include "runtime/metrics/run_log.h"
#include "runtime/model/weights.h"
#include "runtime/train/evaluation.h"
#include "runtime/train/memory_estimate.h"
#include "runtime/train/run_schedule.h"
#include "runtime/train/run_setup.h"

namespace longspan {
namespace {

constexpr int64_t kSampledSteps = 20;

struct Estimate {
  int64_t parameters = 0, buckets = 0;
  MemoryEstimate memory;
  int64_t checkpoint_bytes = 0;
  int64_t steps = 0, sequences = 0, tokens = 0, longest = 0, shared = 0, idle_ranks = 0,
          micro_batches = 0;
  std::map<int64_t, int64_t> groups_by_width;
  double worst_gap = 0, mean_gap = 0;
  int64_t ring_bytes = 0;      // of all ranks, a step, mean
  int64_t gradient_bytes = 0;  // a rank, a step: reduce-scatter and all-gather
};

absl::StatusOr<Estimate> Sample(const RunConfig& config, const Dataset& dataset,
                                const ModelConfig& model, int ranks, DeviceKind device) {
  const ParameterLayout layout(ParameterSpecs(model), ranks);
  Estimate e;
  e.parameters = layout.tensor_elements();
  e.buckets = static_cast<int64_t>(layout.buckets().size());
  const int64_t moments = config.optimizer.kind == "sgd" ? 1 : 2;
  e.checkpoint_bytes = (1 + moments) * SizeOf(DType::kF32) * layout.tensor_elements() / ranks;
  e.gradient_bytes = (SizeOf(GradientWireOf(config)) + SizeOf(ComputeTypeOf(device))) *
                     layout.arena_elements() * (ranks - 1) / ranks;

  absl::StatusOr<std::unique_ptr<Planner>> planner = CreatePlanner(config.planner.policy);
  if (!planner.ok()) return planner.status();
  absl::StatusOr<PlanRequest> request = PlanRequestOf(config, model, ranks, 0);
  if (!request.ok()) return request.status();
  RowsOfRanks steps(ranks), evaluation(ranks);
  const auto plan_of = [&](const std::vector<SequenceRef>& sequences) {
    request->lengths.clear();
    for (const SequenceRef& sequence : sequences) request->lengths.push_back(sequence.length);
    return (*planner)->Plan(*request);
  };
  DataCursor cursor = dataset.Begin();
  for (; e.steps < std::min(kSampledSteps, config.run.steps); ++e.steps) {
    absl::StatusOr<StepPlan> plan = plan_of(dataset.NextBatch(cursor, config.batch.tokens));
    if (!plan.ok()) return plan.status();
    if (absl::Status status = Validate(*plan); !status.ok()) return status;
    steps.AddStep(*plan);
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
    for (int64_t bytes : RingBytesByRank(*plan, AttentionOf(config, device),
                                         {model.heads, model.kv_heads, model.head_dim()}))
      e.ring_bytes += model.layers * bytes;
  }
  e.mean_gap /= static_cast<double>(e.steps);
  e.ring_bytes /= e.steps;
  const std::vector<SequenceRef> validation =
      Evaluation::Choose(dataset, config.metrics.evaluate_tokens);
  if (!validation.empty()) {
    absl::StatusOr<StepPlan> plan = plan_of(validation);
    if (!plan.ok()) return plan.status();
    evaluation.AddStep(*plan);
  }
  e.memory = EstimateMemory(config, model, layout, steps, evaluation, device);
  return e;
}

// "1.2 GiB: parameters 400 MiB, ...", largest first.
std::string SizesText(const std::map<std::string, int64_t>& sizes, int64_t total) {
  std::vector<std::pair<std::string, int64_t>> ordered(sizes.begin(), sizes.end());
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text = ShortBytes(static_cast<double>(total));
  for (size_t i = 0; i < ordered.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? ": " : ", ", ordered[i].first, " ",
                    ShortBytes(static_cast<double>(ordered[i].second)));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> DryRun(const RunConfig& config, int ranks, DeviceKind device,
                                   bool json) {
  absl::StatusOr<std::unique_ptr<Dataset>> dataset = OpenDataset(config);
  if (!dataset.ok()) return dataset.status();
  absl::StatusOr<ModelConfig> model = ModelOf(config, **dataset);
  if (!model.ok()) return model.status();
  if (absl::Status status = ScheduleOf(config).status(); !status.ok()) return status;
  if (absl::Status status = CheckCapacity(config, **dataset, ranks); !status.ok()) return status;
  absl::StatusOr<Estimate> estimate = Sample(config, **dataset, *model, ranks, device);
  if (!estimate.ok()) return estimate.status();
  const Estimate& e = *estimate;
  const bool gpu = device != DeviceKind::kCpu;
  const MemoryEstimate& memory = e.memory;
  if (json) {
    nlohmann::json widths = nlohmann::json::object();
    for (const auto& [width, count] : e.groups_by_width) widths[absl::StrCat(width)] = count;
    const nlohmann::json object = {{"ranks", ranks},
                                   {"estimate", true},
                                   {"parameters", e.parameters},
                                   {"buckets", e.buckets},
                                   {"device", gpu ? "cuda" : "cpu"},
                                   {"bytes_per_rank",
                                    {{"device", memory.device},
                                     {"host", memory.host},
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
  if (gpu) {
    absl::StrAppend(&text, "GPU memory   a rank ", SizesText(memory.device, memory.device_bytes()),
                    "; rings and attention want more\n");
  }
  absl::StrAppend(&text, gpu ? "host memory  a rank " : "memory       a rank ",
                  SizesText(memory.host, memory.host_bytes()), gpu ? "\n" : "; rings want more\n");
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
