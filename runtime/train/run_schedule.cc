#include "runtime/train/run_schedule.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "optim/budget_change.h"
#include "optim/portable_shape.h"
#include "runtime/metrics/number_lines.h"

namespace longspan {
namespace {

// A rate that falls below this share of its peak pulls norms up under weight decay: the weights
// shrink less and less, so gradients grow.
constexpr double kAnnealed = 0.2;

constexpr char kSection[] = "schedule.";
constexpr char kOnBudgetChange[] = "schedule.on_budget_change";

bool ScheduleKeysChanged(const RunState& saved, const std::vector<ConfigEntry>& entries) {
  for (const ConfigEntry& now : entries) {
    if (!absl::StartsWith(now.key, kSection) || now.key == kOnBudgetChange) continue;
    for (const ConfigEntry& then : saved.config) {
      if (then.key == now.key && then.value != now.value) return true;
    }
  }
  return false;
}

absl::StatusOr<Schedule> Replanned(const Schedule& stored, int64_t done, const RunConfig& config,
                                   const std::string& how) {
  if (how == "rescale") {
    if (done > config.run.steps) return Replan(stored, done, config.run.steps, BudgetChange::kHold);
    return ScheduleOf(config);
  }
  return Replan(stored, done, config.run.steps,
                how == "retime" ? BudgetChange::kRetime
                : how == "hold" ? BudgetChange::kHold
                                : BudgetChange::kFinish);
}

// "2.1e-05, then 1.0e-04 -> 3.0e-07": the last rate used, the next, the last.
std::string RatesToCome(const Schedule& stored, const Schedule& plan, int64_t done) {
  if (done >= plan.steps()) return "no more rates";
  return absl::StrFormat("rate %.2e so far, then %.2e -> %.2e",
                         done > 0 ? stored.Rate(done - 1) : 0.0, plan.Rate(done),
                         plan.Rate(plan.steps() - 1));
}

absl::Status ShowChoices(const Schedule& stored, int64_t done, const RunConfig& config) {
  const std::pair<const char*, const char*> choices[] = {
      {"retime", "the best rest, given the rates already used"},
      {"rescale", "the configured curve over the new budget, as if it had been so from the start"},
      {"hold", "the last rate, to the end"},
      {"finish", "from the last rate straight down to zero"},
  };
  std::string text =
      absl::StrCat("cannot resume: run.steps was ", stored.steps(), ", is now ", config.run.steps,
                   "; say how the learning rate goes on after step ", done, ", with one of");
  for (const auto& [how, meaning] : choices) {
    const absl::StatusOr<Schedule> plan = Replanned(stored, done, config, how);
    if (!plan.ok()) return plan.status();
    absl::StrAppend(&text, absl::StrFormat("\n  --set %s=%-8s %s: %s", kOnBudgetChange, how,
                                           meaning, RatesToCome(stored, *plan, done)));
  }
  return absl::InvalidArgumentError(text);
}

}  // namespace

absl::StatusOr<std::string> ScheduleOnResume(const RunState& saved, const RunConfig& config,
                                             const std::vector<ConfigEntry>& entries,
                                             std::string* change) {
  change->clear();
  absl::StatusOr<Schedule> stored = Schedule::FromJson(saved.schedule);
  if (!stored.ok()) return stored.status();
  if (stored->steps() == config.run.steps) {
    // Not to the bit of the JSON alone: the same plan, whatever it was made from.
    if (!ScheduleKeysChanged(saved, entries)) return stored->ToJson();
    absl::StatusOr<Schedule> configured = ScheduleOf(config);
    if (!configured.ok()) return configured.status();
    *change = absl::StrCat("schedule ", configured->config().kind, ": ",
                           RatesToCome(*stored, *configured, saved.step));
    return configured->ToJson();
  }
  const std::string& how = config.schedule.on_budget_change;
  if (how == "refuse") return ShowChoices(*stored, saved.step, config);
  absl::StatusOr<Schedule> plan = Replanned(*stored, saved.step, config, how);
  if (!plan.ok()) return plan.status();
  *change = absl::StrCat("schedule, by on_budget_change = \"", how,
                         "\": ", RatesToCome(*stored, *plan, saved.step));
  return plan->ToJson();
}

std::string RefinedFromRun::Summary() const {
  std::string text = absl::StrFormat(
      "from %s norms of %d updates: ", norm == GradientNorm::kL1 ? "l1" : "l2", source.recorded());
  if (refined.fallback.empty()) {
    absl::StrAppend(&text, PortableShapeOf(refined.factors).text);
  } else {
    absl::StrAppend(&text, "linear, as ", refined.fallback);
  }
  absl::StrAppend(&text, absl::StrFormat("; headroom over linear %.1f%%", 100 * refined.headroom));
  for (const std::string& warning : warnings) absl::StrAppend(&text, "; ", warning);
  return text;
}

absl::StatusOr<RefinedFromRun> RefineFromRun(const std::string& run, const std::string& norm,
                                             RefineOptions options) {
  RefinedFromRun result;
  const std::string path = run + "/norms.h5";
  absl::StatusOr<NormLogContents> source = ReadNormLog(path);
  if (!source.ok()) return source.status();
  result.source = *std::move(source);
  if (norm != "auto") {
    options.norm = norm == "l1" ? GradientNorm::kL1 : GradientNorm::kL2;
  } else {
    options.norm = result.source.norm_of_optimizer();
  }
  result.norm = options.norm;
  absl::StatusOr<RefinedSchedule> refined = Refine(result.source.Norms(options.norm), options);
  if (!refined.ok()) {
    return absl::Status(refined.status().code(),
                        absl::StrCat(path, ": ", std::string(refined.status().message())));
  }
  result.refined = *std::move(refined);

  const std::vector<double> rates = result.source.Rates();
  const double peak = *std::max_element(rates.begin(), rates.end());
  if (result.source.weight_decay > 0 && rates.back() < kAnnealed * peak) {
    result.warnings.push_back(
        "the source run annealed its rate under weight decay, which raises late norms by itself: "
        "norms of a constant-rate run say more");
  }
  const int64_t recorded = static_cast<int64_t>(rates.size()),
                budget = static_cast<int64_t>(result.source.updates.size());
  if (recorded < budget) {
    result.warnings.push_back(
        absl::StrCat("the source run stopped after ", recorded, " of ", budget, " updates"));
  }
  if (options.norm != result.source.norm_of_optimizer()) {
    result.warnings.push_back(absl::StrCat("for ", result.source.optimizer, " the ",
                                           options.norm == GradientNorm::kL1 ? "l2" : "l1",
                                           " norms are the right ones"));
  }
  return result;
}

absl::StatusOr<Schedule> ScheduleOf(const RunConfig& config) {
  const RunConfig::ScheduleKeys& keys = config.schedule;
  ScheduleConfig schedule;
  schedule.kind = keys.kind;
  schedule.peak = keys.peak;
  schedule.warmup = keys.warmup;
  schedule.floor = keys.floor;
  schedule.steps = config.run.steps;
  schedule.profile = keys.profile;
  schedule.sampling = keys.sampling;
  if (keys.kind == "table") {
    if (keys.file.empty()) {
      return absl::InvalidArgumentError(
          "schedule.kind = \"table\" needs schedule.file: a text file of rates, one a line");
    }
    absl::StatusOr<std::vector<double>> rates = ReadNumberLines(keys.file);
    if (!rates.ok()) return rates.status();
    if (static_cast<int64_t>(rates->size()) != config.run.steps) {
      return absl::InvalidArgumentError(absl::StrCat(keys.file, ": has ", rates->size(),
                                                     " rates, but run.steps = ", config.run.steps,
                                                     "; they must be as many"));
    }
    schedule.values = *std::move(rates);
    schedule.note = keys.file;
  }
  if (keys.kind == "refined") {
    if (keys.from.empty()) {
      return absl::InvalidArgumentError(
          "schedule.kind = \"refined\" needs schedule.from: the folder of an earlier run of this "
          "job, whose norms.h5 it reads; longspan train takes --schedule refined --from RUN");
    }
    RefineOptions options;
    options.steps = config.run.steps;
    options.filter_share = keys.filter;
    options.blend = keys.blend;
    absl::StatusOr<RefinedFromRun> refined = RefineFromRun(keys.from, keys.norm, options);
    if (!refined.ok()) return refined.status();
    schedule.note = refined->Summary();
    schedule.values = std::move(refined->refined.factors);
  }
  return Schedule::Create(schedule);
}

}  // namespace longspan
