#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/config.h"
#include "launch/schedule_plot.h"
#include "nlohmann/json.hpp"
#include "optim/last_iterate_bound.h"
#include "optim/portable_shape.h"
#include "runtime/metrics/number_lines.h"
#include "runtime/train/run_schedule.h"

namespace longspan {
namespace {

using nlohmann::json;

struct Options {
  std::string config;
  std::vector<std::string> sets;
  std::string run;
  std::string norms;
  std::string norm;
  int64_t steps = 0;
  bool compat = false;
  bool as_json = false;
  std::string svg;
};

// Beginning, end of the warm-up, every tenth, end.
void PrintMarkedSteps(const std::vector<double>& values, int64_t warmup, const char* name) {
  const int64_t steps = static_cast<int64_t>(values.size());
  std::set<int64_t> marked = {0, std::min(warmup, steps - 1), steps - 1};
  for (int64_t tenth = 1; tenth < 10; ++tenth) marked.insert(tenth * steps / 10);
  std::printf("%10s %6s  %s\n", "step", "done", name);
  for (const int64_t step : marked) {
    std::printf("%10lld %5.0f%%  %.6g\n", static_cast<long long>(step),
                100 * static_cast<double>(step) / static_cast<double>(steps), values[step]);
  }
  if (isatty(STDOUT_FILENO) != 0) std::printf("\n%s", TextPlot(values).c_str());
}

absl::Status Show(const Options& options) {
  std::vector<std::string> sets = options.sets;
  if (options.steps > 0) sets.push_back(absl::StrCat("run.steps=", options.steps));
  absl::StatusOr<LoadedConfig> config = LoadConfig(options.config, sets);
  if (!config.ok()) return config.status();
  absl::StatusOr<Schedule> schedule = ScheduleOf(config->values);
  if (!schedule.ok()) return schedule.status();
  const std::vector<double> rates = schedule->Rates();
  const std::string& kind = schedule->config().kind;
  if (!options.svg.empty()) {
    if (absl::Status status = WriteSvgPlot(options.svg, rates, kind); !status.ok()) return status;
  }
  if (options.as_json) {
    const json object = {{"kind", kind},
                         {"steps", schedule->steps()},
                         {"warmup_steps", schedule->warmup_steps()},
                         {"rates", rates},
                         {"plan", json::parse(schedule->ToJson())}};
    std::puts(object.dump(2).c_str());
    return absl::OkStatus();
  }
  const std::string& note = schedule->config().note;
  std::printf("%s over %lld steps, %lld of them warm-up%s%s\n", kind.c_str(),
              static_cast<long long>(schedule->steps()),
              static_cast<long long>(schedule->warmup_steps()), note.empty() ? "" : ": ",
              note.c_str());
  PrintMarkedSteps(rates, schedule->warmup_steps(), "rate");
  return absl::OkStatus();
}

absl::StatusOr<RefinedFromRun> RefineAsAsked(const Options& options) {
  if (options.run.empty() == options.norms.empty()) {
    return absl::InvalidArgumentError(
        "schedule refine needs either a run's folder or --norms FILE; see longspan schedule refine "
        "--help");
  }
  RefineOptions refine;
  refine.steps = options.steps;
  refine.compatible = options.compat;
  if (!options.run.empty())
    return RefineFromRun(options.run, options.norm.empty() ? "auto" : options.norm, refine);
  if (options.norm.empty()) {
    return absl::InvalidArgumentError(
        "--norms needs --norm l1 (norms of a run with Adam) or --norm l2 (with SGD)");
  }
  absl::StatusOr<std::vector<double>> norms = ReadNumberLines(options.norms);
  if (!norms.ok()) return norms.status();
  RefinedFromRun result;
  result.norm = refine.norm = options.norm == "l1" ? GradientNorm::kL1 : GradientNorm::kL2;
  for (const double norm : *norms) {
    NormRecord record;
    record.l1 = record.l2 = norm;
    record.rate = 1;
    result.source.updates.push_back(record);
  }
  absl::StatusOr<RefinedSchedule> refined = Refine(*norms, refine);
  if (!refined.ok()) {
    return absl::Status(refined.status().code(),
                        absl::StrCat(options.norms, ": ", std::string(refined.status().message())));
  }
  result.refined = *std::move(refined);
  return result;
}

absl::Status PrintRefined(const Options& options) {
  absl::StatusOr<RefinedFromRun> result = RefineAsAsked(options);
  if (!result.ok()) return result.status();
  const RefinedSchedule& refined = result->refined;
  if (!options.svg.empty()) {
    absl::Status status = WriteSvgPlot(options.svg, refined.factors, "refined, factor of the peak");
    if (!status.ok()) return status;
  }
  if (!options.as_json) {
    std::printf("%s\n", result->Summary().c_str());
    PrintMarkedSteps(refined.factors, 0, "factor of the peak");
    return absl::OkStatus();
  }
  const PortableShape shape = PortableShapeOf(refined.factors);
  const json object = {{"factors", refined.factors},
                       {"steps", refined.factors.size()},
                       {"norm", result->norm == GradientNorm::kL1 ? "l1" : "l2"},
                       {"compat", options.compat},
                       {"recorded", result->source.recorded()},
                       {"interpolated", refined.interpolated},
                       {"filtered_norms", refined.norms},
                       {"headroom", refined.headroom},
                       {"effective_share", refined.effective_share},
                       {"largest_weight", refined.largest_weight},
                       {"peak_step", refined.peak_step},
                       {"fallback", refined.fallback.empty() ? json() : json(refined.fallback)},
                       {"portable",
                        {{"warmup_steps", shape.warmup_steps},
                         {"power", shape.power},
                         {"r2", shape.r2},
                         {"text", shape.text}}},
                       {"warnings", result->warnings}};
  std::puts(object.dump(2).c_str());
  return absl::OkStatus();
}

absl::Status PrintExplanation(const Options& options) {
  absl::StatusOr<RefinedFromRun> source =
      RefineFromRun(options.run, options.norm.empty() ? "auto" : options.norm, {});
  if (!source.ok()) return source.status();
  // A run of before, or one whose plan is of a newer version, is compared without a warm-up.
  const absl::StatusOr<Schedule> plan = Schedule::FromJson(source->source.schedule);
  const int64_t warmup = plan.ok() ? plan->warmup_steps() : 0;
  const std::string kind = plan.ok() ? plan->config().kind : "unknown";
  RefineOptions refine;
  refine.norm = source->norm;
  absl::StatusOr<Explanation> explanation =
      Explain(source->source.Norms(source->norm), source->source.Rates(), warmup, refine);
  if (!explanation.ok()) return explanation.status();
  const char* norm = source->norm == GradientNorm::kL1 ? "l1" : "l2";
  if (options.as_json) {
    json shapes = json::array();
    for (const ShapeBound& shape : explanation->shapes) {
      shapes.push_back(
          {{"shape", shape.shape}, {"bound", shape.bound}, {"best_peak", shape.best_peak}});
    }
    const json object = {{"run", options.run},
                         {"schedule", kind},
                         {"norm", norm},
                         {"updates", source->source.recorded()},
                         {"shapes", shapes},
                         {"headroom", explanation->headroom},
                         {"implied_norms", explanation->implied_norms},
                         {"optimal_for", explanation->optimal_for},
                         {"refined_fallback", explanation->fallback},
                         {"warnings", source->warnings},
                         {"advice", explanation->advice}};
    std::puts(object.dump(2).c_str());
    return absl::OkStatus();
  }
  std::printf("%s: %s, judged by the %s norms of %lld updates\n\n", options.run.c_str(),
              kind.c_str(), norm, static_cast<long long>(source->source.recorded()));
  std::printf("%-14s %10s %10s   relative to the schedule used\n", "shape", "bound", "best peak");
  for (const ShapeBound& shape : explanation->shapes) {
    std::printf("%-14s %10.4f %10.3f\n", shape.shape.c_str(), shape.bound, shape.best_peak);
  }
  std::printf("\nheadroom of a refined schedule over linear: %.1f%%\n",
              100 * explanation->headroom);
  if (!explanation->fallback.empty())
    std::printf("no refined shape is offered: %s\n", explanation->fallback.c_str());
  std::printf("the schedule used is the best for %s\n", explanation->optimal_for.c_str());
  for (const std::string& warning : source->warnings) std::printf("note: %s\n", warning.c_str());
  std::printf("%s\n", explanation->advice.c_str());
  return absl::OkStatus();
}

}  // namespace

void RegisterScheduleCommand(const Command& root, SelectedCommand* selected) {
  const Command schedule =
      root.AddCommand("schedule", "Learning rates: show, refine from norms, explain a run");
  schedule.RequireCommand();
  const auto add = [&](const char* name, const char* help, const char* footer,
                       absl::Status (*run)(const Options&)) {
    auto options = std::make_shared<Options>();
    const Command command = schedule.AddCommand(name, help);
    command.AddFlag("--json", options->as_json, "as JSON");
    command.Footer(footer);
    command.OnChosen(
        [selected, options, run] { *selected = [options, run] { return run(*options); }; });
    return std::make_pair(command, options);
  };
  const auto norm_option = [](const Command& command, const std::shared_ptr<Options>& options) {
    command
        .AddOption("--norm", options->norm,
                   "l1 (Adam) or l2 (SGD); of a run, what fits its optimizer by default")
        .OneOf({"l1", "l2"});
  };

  const auto [show, show_options] =
      add("show", "Print the rates of a configuration; on a terminal, with a plot",
          "Examples:\n"
          "  longspan schedule show my.toml\n"
          "  longspan schedule show --set schedule.kind=rex --steps 1000 --svg rex.svg",
          Show);
  show.AddOption("CONFIG", show_options->config, "configuration file; defaults without one");
  show.AddOption("--set", show_options->sets, "section.key=value, over the file; repeatable")
      .Repeatable();
  show.AddOption("--steps", show_options->steps, "over run.steps").Positive();
  show.AddOption("--svg", show_options->svg, "draw to this file");

  const auto [refine, refine_options] =
      add("refine", "Make the schedule that is best for a run's gradient norms",
          "Examples:\n"
          "  longspan schedule refine runs/first --steps 5000\n"
          "  longspan schedule refine --norms norms.txt --norm l2 --json",
          PrintRefined);
  refine.AddOption("RUN", refine_options->run, "a run's folder");
  refine.AddOption("--norms", refine_options->norms,
                   "instead of a run: a text file of norms, one a line; nan: missing");
  norm_option(refine, refine_options);
  refine.AddFlag("--compat", refine_options->compat,
                 "the arithmetic of the published scripts (arXiv 2310.07831)");
  refine
      .AddOption("--steps", refine_options->steps,
                 "updates of the new run; as many as norms by default")
      .Positive();
  refine.AddOption("--svg", refine_options->svg, "draw to this file");

  const auto [explain, explain_options] =
      add("explain", "Compare shapes by the bound on a run's norms, and advise",
          "Example:\n  longspan schedule explain runs/first", PrintExplanation);
  explain.AddOption("RUN", explain_options->run, "a run's folder").Required();
  norm_option(explain, explain_options);
}

}  // namespace longspan
