// `longspan plan`: the step plan of one batch, with its certificate, for any number of ranks.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/cost_options.h"
#include "launch/length_options.h"
#include "parallel/certificate.h"
#include "parallel/plan_drawing.h"
#include "parallel/plan_timeline.h"
#include "parallel/planner.h"
#include "runtime/metrics/run_log.h"

namespace longspan {
namespace {

constexpr char kFooter[] =
    "Examples:\n"
    "  longspan plan --mix github --tokens 32M --context 1M --ranks 1024 --micro-batch-tokens "
    "8192\n"
    "  longspan plan --data data/mine.h5 --tokens 4M --ranks 16 --micro-batch-tokens 8192 \\\n"
    "      --gpu h100 --model llama-7b --ranks-per-node 8 --svg plan.svg\n"
    "  printf '20000\\n700\\n512\\n' | longspan plan --lengths - --ranks 4 --micro-batch-tokens "
    "8192 "
    "--json";
constexpr int kMostTimelineRanks = 16, kTimelineColumns = 80;
constexpr size_t kMostWidthsShown = 10;

struct Options {
  LengthOptions lengths;
  CostOptions cost;
  int64_t ranks = 0;
  int64_t micro_batch_tokens = 0;
  int64_t ranks_per_node = 0;
  std::string head_parallel = "1";
  std::string policy;
  std::string svg;
  bool json = false;
};

std::string Seconds(double seconds) {
  if (seconds >= 1 || seconds == 0) return absl::StrFormat("%.3f s", seconds);
  return seconds >= 1e-3 ? absl::StrFormat("%.3f ms", 1e3 * seconds)
                         : absl::StrFormat("%.3g us", 1e6 * seconds);
}

std::string Tokens(double tokens) { return ShortCount(tokens); }

// Why no plan can be faster than the bound that binds.
std::string ReasonOf(const std::string& bound) {
  if (bound == "area") return "the work of all sequences together keeps the ranks busy that long";
  if (bound == "longest") return "the longest sequence takes that long on the best number of ranks";
  return "sequences that need more than half of the ranks must run one after the other";
}

std::string GroupsOf(const StepPlan& plan) {
  std::map<std::pair<size_t, int>, int64_t> widths;  // and width of head parallelism
  for (const SequenceGroup& group : plan.groups) {
    ++widths[{group.ranks.size(), group.head_parallel}];
  }
  if (widths.empty()) return "none: every sequence stays on one rank";
  std::vector<std::string> parts;
  for (const auto& [width, count] : widths) {
    if (parts.size() == kMostWidthsShown && widths.size() > kMostWidthsShown + 1) {
      parts.push_back(absl::StrCat("and ", widths.size() - kMostWidthsShown, " more widths up to ",
                                   widths.rbegin()->first.first));
      break;
    }
    parts.push_back(
        absl::StrCat(count, " of width ", width.first,
                     width.second == 1 ? "" : absl::StrCat(" (heads by ", width.second, ")")));
  }
  return absl::StrJoin(parts, ", ");
}

std::string Summary(const std::string& policy, const StepPlan& plan, const PlanTimeline& timeline,
                    int ranks_per_node) {
  const PlanCertificate& c = plan.certificate;
  const std::string bound = BindingBound(c);
  std::string text = absl::StrFormat(
      "%s: %d %s of %s tokens, longest %d, on %d %s of %d tokens a micro-batch\n", policy,
      plan.lengths.size(), plan.lengths.size() == 1 ? "sequence" : "sequences",
      Tokens(static_cast<double>(plan.total_tokens())),
      *std::max_element(plan.lengths.begin(), plan.lengths.end()), plan.ranks,
      plan.ranks == 1 ? "rank" : "ranks", plan.micro_batch_tokens);
  absl::StrAppendFormat(&text, "makespan       %s, %.2f%% over the lower bound of %s\n",
                        Seconds(c.makespan_seconds), 100 * c.gap, Seconds(c.lower_bound_seconds));
  absl::StrAppendFormat(&text, "lower bounds   area %s, longest %s, wide %s\n",
                        Seconds(c.area_seconds), Seconds(c.longest_seconds),
                        Seconds(c.wide_seconds));
  absl::StrAppendFormat(&text, "what binds     %s: %s\n", bound, ReasonOf(bound));

  const double makespan = std::max(c.makespan_seconds, 1e-300);
  double idle = 0, most_idle = 0;
  size_t fewest = plan.micro_batches[0].size(), most = 0, all = 0, without = 0;
  for (const std::vector<TimedMicroBatch>& list : timeline.micro_batches) {
    PlanningTime busy = 0;
    for (const TimedMicroBatch& timed : list) busy += timed.cost;
    const double share = 1 - IntegerCostModel::Seconds(busy) / makespan;
    idle += share / plan.ranks;
    most_idle = std::max(most_idle, share);
    fewest = std::min(fewest, list.size());
    most = std::max(most, list.size());
    all += list.size();
    without += list.empty();
  }
  absl::StrAppendFormat(&text, "idle           %.2f%% of the ranks' time, the idlest rank %.2f%%",
                        100 * idle, 100 * most_idle);
  if (without > 0) absl::StrAppend(&text, "; ", without, " ranks have no work");
  absl::StrAppendFormat(&text, "\ngroups         %s\n", GroupsOf(plan));
  absl::StrAppendFormat(&text, "micro-batches  %d to %d a rank, %.1f on average\n", fewest, most,
                        static_cast<double>(all) / plan.ranks);
  const RingTraffic traffic = RingTrafficOf(plan, ranks_per_node);
  absl::StrAppendFormat(&text, "ring traffic   K and V of %s tokens a layer's forward pass",
                        Tokens(traffic.tokens));
  if (ranks_per_node > 0 && traffic.tokens > 0) {
    absl::StrAppendFormat(&text, ", %s of them (%.0f%%) between nodes",
                          Tokens(traffic.cross_node_tokens),
                          100 * traffic.cross_node_tokens / traffic.tokens);
  }
  absl::StrAppendFormat(&text, "\nplanned in     %s\n", Seconds(c.planning_seconds));
  if (plan.ranks <= kMostTimelineRanks) {
    absl::StrAppend(&text, "\n rank  0 to ", Seconds(c.makespan_seconds),
                    "; letters: rings, =: whole sequences, .: idle\n",
                    TextTimeline(timeline, kTimelineColumns));
  }
  return text;
}

absl::Status WriteDrawing(const std::string& path, const std::string& svg) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << svg;
  file.close();
  return file ? absl::OkStatus()
              : absl::PermissionDeniedError(absl::StrCat(path, ": cannot write the drawing"));
}

// A count from the command line as the planner takes it: what does not fit is refused there.
int Narrowed(int64_t value) {
  return static_cast<int>(std::clamp<int64_t>(value, -1, int64_t{1} << 24));
}

// Which groups may split heads; `cost` knows how many there are.
absl::StatusOr<HeadParallelism> HeadsOf(const Options& options, const CostModel& cost) {
  HeadParallelism heads = cost.heads;
  int64_t most = 0;
  if (options.head_parallel != "auto" &&
      !(absl::SimpleAtoi(options.head_parallel, &most) && most >= 1 && most <= kMaxHeads)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--head-parallel ", options.head_parallel,
        ": needs auto, or the most ranks that may split heads: 1 for none, 2 and more"));
  }
  if (most != 1 && !options.cost.file.empty()) {
    return absl::InvalidArgumentError(
        "--head-parallel needs to know how many heads there are, which a cost file does not say: "
        "leave --cost out, or name a model with --gpu and --model");
  }
  heads.widest = most > 0;
  const int64_t on_node = options.ranks_per_node > 0 ? options.ranks_per_node : options.ranks;
  const int64_t limit = most > 0 ? std::min(most, on_node) : on_node;
  heads.most = static_cast<int>(std::clamp<int64_t>(limit, 1, kMaxHeads));
  return heads;
}

absl::Status Plan(const Options& options) {
  const absl::StatusOr<std::unique_ptr<Planner>> planner =
      CreatePlanner(options.policy.empty() ? PlannerPolicies().front() : options.policy);
  if (!planner.ok()) return planner.status();
  if (options.ranks > (int64_t{1} << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ranks ", options.ranks, ": at most ", int64_t{1} << 20));
  }
  const absl::StatusOr<ChosenCost> cost = ChooseCost(options.cost);
  if (!cost.ok()) return cost.status();
  absl::StatusOr<std::vector<int64_t>> lengths = ChooseLengths(options.lengths);
  if (!lengths.ok()) return lengths.status();

  PlanRequest request;
  request.lengths = *std::move(lengths);
  request.ranks = Narrowed(options.ranks);
  request.micro_batch_tokens = options.micro_batch_tokens;
  request.cost = cost->cost;
  request.ranks_per_node = Narrowed(options.ranks_per_node);
  const absl::StatusOr<HeadParallelism> heads = HeadsOf(options, cost->cost);
  if (!heads.ok()) return heads.status();
  request.cost.heads = *heads;
  const absl::StatusOr<StepPlan> plan = (*planner)->Plan(request);
  if (!plan.ok()) return plan.status();
  if (absl::Status status = Validate(*plan); !status.ok()) return status;
  std::fputs(cost->assumptions.c_str(), stderr);

  const absl::StatusOr<IntegerCostModel> integer_cost =
      IntegerCostModel::Create(request.cost, request.ranks);
  if (!integer_cost.ok()) return integer_cost.status();
  const PlanTimeline timeline = TimelineOf(*plan, *integer_cost);
  if (!options.svg.empty()) {
    const std::string title =
        absl::StrFormat("%s, %d ranks, %s tokens, %s: makespan %s, gap %.2f%%", (*planner)->name(),
                        plan->ranks, Tokens(static_cast<double>(plan->total_tokens())), cost->name,
                        Seconds(plan->certificate.makespan_seconds), 100 * plan->certificate.gap);
    absl::Status status = WriteDrawing(
        options.svg, SvgTimeline(timeline, plan->certificate.lower_bound_seconds, title));
    if (!status.ok()) return status;
  }
  if (options.json) {
    std::puts(ToJson(*plan).c_str());
  } else {
    std::fputs(Summary((*planner)->name(), *plan, timeline, request.ranks_per_node).c_str(),
               stdout);
  }
  return absl::OkStatus();
}

}  // namespace

void RegisterPlanCommand(const Command& root, SelectedCommand* selected) {
  auto options = std::make_shared<Options>();
  const Command plan = root.AddCommand(
      "plan", "Plan one batch for any number of ranks: who computes what, and how good that is");
  AddLengthOptions(plan, options->lengths);
  plan.AddOption("--ranks", options->ranks, "ranks that share the batch").Required();
  plan.AddOption("--micro-batch-tokens", options->micro_batch_tokens,
                 "tokens that one rank holds at a time; even")
      .Size()
      .Required();
  plan.AddOption(
      "--policy", options->policy,
      absl::StrCat("how to plan: ", absl::StrJoin(PlannerPolicies(), ", "), "; default the first"));
  plan.AddOption("--ranks-per-node", options->ranks_per_node,
                 "keeps rings inside nodes of so many ranks where that is free");
  plan.AddOption("--head-parallel", options->head_parallel,
                 "auto: groups split heads inside nodes where their ring limits; or by how many "
                 "at most; default 1, none");
  plan.AddFlag("--json", options->json, "the plan itself, as JSON (\"longspan-plan\")");
  plan.AddOption("--svg", options->svg, "draws the timeline into this file");
  AddCostOptions(plan, options->cost);
  plan.Footer(kFooter);
  plan.OnChosen([selected, options] { *selected = [options] { return Plan(*options); }; });
}

}  // namespace longspan
