// `longspan simulate`.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/cost_options.h"
#include "launch/figure_17.h"
#include "launch/simulation_sweep.h"
#include "launch/speedup_plot.h"
#include "nlohmann/json.hpp"
#include "parallel/length_mix.h"

namespace longspan {
namespace {

// Of the cost model that is taken by default, ByteScale's case study (arXiv 2502.21231): half of
// the parameters of LLaMA-7B on each of a rank's two GPUs, which moved 134 MB of KV in 1.9 ms
// together.
constexpr double kCaseStudyParameters = 3.4e9, kCaseStudyLinkBytesPerSecond = 35e9;

constexpr char kFooter[] =
    "Examples:\n"
    "  longspan simulate --mix github,code --ranks 64,256 --context 256K,1M\n"
    "  longspan simulate --mix byted --ranks 64 --context 128K --jitter 0.05 --batches 10\n"
    "  longspan simulate --mix github --ranks 64 --context 256K --stages 4 \\\n"
    "      --policy static,bytescale,pp-balance,skyline\n"
    "  longspan simulate --gpu h100 --model llama-7b --ranks 256 --context 512K --tokens 32M\n"
    "  longspan simulate --figure-17 --svg figure-17.svg\n\n"
    "K and M count 1024 and 1024 * 1024 tokens.";

// "8192", "256K" or "32M".
absl::StatusOr<int64_t> ParseTokens(const std::string& option, const std::string& text) {
  std::string digits = text;
  int64_t unit = 1;
  if (!digits.empty() && (digits.back() == 'K' || digits.back() == 'k')) unit = int64_t{1} << 10;
  if (!digits.empty() && (digits.back() == 'M' || digits.back() == 'm')) unit = int64_t{1} << 20;
  if (unit > 1) digits.pop_back();
  int64_t value = 0;
  if (!absl::SimpleAtoi(digits, &value) || value < 0 || value > (int64_t{1} << 40)) {
    return absl::InvalidArgumentError(
        absl::StrCat("simulate: ", option, " ", text,
                     ": it must be a number of tokens, such as 8192, 256K or 32M"));
  }
  return value * unit;
}

std::string TokensText(int64_t tokens) {
  constexpr int64_t kK = 1 << 10, kM = 1 << 20;
  if (tokens == 0) return "as drawn";
  if (tokens % kM == 0) return absl::StrCat(tokens / kM, "M");
  return tokens % kK == 0 ? absl::StrCat(tokens / kK, "K") : absl::StrCat(tokens);
}

struct SimulateArguments {
  std::vector<std::string> mixes = {"github", "byted"};
  std::vector<std::string> policies = {"static", "naive", "bytescale", "skyline"};
  std::vector<int> ranks = {64};
  std::vector<std::string> contexts = {"256K"};
  std::string tokens = "4M", micro_batch_tokens = "8K";
  int batches = 5;
  uint64_t seed = 1;
  double jitter = 0;
  int stages = 1;
  CostOptions cost;
  double parameters = -1;  // below 0: not given
  double link_bytes_per_second = kCaseStudyLinkBytesPerSecond;
  std::string gradient_wire = "f32";
  bool figure_17 = false;
  bool json = false;
  std::string svg;
  std::vector<std::string> given;  // options that --figure-17 sets itself
};

// A live line on a terminal, else a line every ten seconds; nothing in the first two.
class Progress {
 public:
  Progress() : terminal_(::isatty(STDERR_FILENO) != 0) {}
  ~Progress() {
    if (live_) std::fputs("\r\x1b[K", stderr);
  }

  void Show(size_t done, size_t all) {
    const auto now = std::chrono::steady_clock::now();
    const double since_shown = std::chrono::duration<double>(now - shown_).count();
    const double seconds = std::chrono::duration<double>(now - start_).count();
    if (seconds < 2 || since_shown < (terminal_ ? 0.2 : 10.0)) return;
    shown_ = now;
    live_ = terminal_;
    std::fprintf(stderr, "%ssimulate: %zu of %zu batches, about %.0f s left%s",
                 terminal_ ? "\r\x1b[K" : "", done, all,
                 seconds * static_cast<double>(all - done) / static_cast<double>(done),
                 terminal_ ? "" : "\n");
    std::fflush(stderr);
  }

 private:
  bool terminal_, live_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point shown_ = start_;
};

std::vector<SimulationResult> RunWithProgress(const std::vector<SimulationCase>& cases,
                                              const SimulateArguments& arguments) {
  Progress progress;
  return RunSimulations(cases, arguments.batches, arguments.seed,
                        [&](size_t done, size_t all) { progress.Show(done, all); });
}

absl::Status WriteSvg(const std::string& path, const std::string& svg) {
  std::ofstream file(path, std::ios::binary);
  file << svg;
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("simulate: cannot write ", path, ": ", std::strerror(errno)));
}

// 0: one of them has no result.
double Speedup(const SimulationResult& baseline, const SimulationResult& result) {
  return baseline.step_seconds > 0 && result.step_seconds > 0
             ? baseline.step_seconds / result.step_seconds
             : 0;
}

std::string SpeedupText(double speedup) {
  return speedup > 0 ? absl::StrFormat("%.2f", speedup) : "-";
}

nlohmann::ordered_json Number(double value) {
  return value > 0 ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

nlohmann::ordered_json ResultJson(const SimulationCase& simulated, const SimulationResult& result,
                                  double speedup) {
  nlohmann::ordered_json row = {
      {"mix", simulated.mix},       {"context", simulated.context},
      {"ranks", simulated.ranks},   {"stages", simulated.simulation.stages},
      {"tokens", simulated.tokens}, {"micro_batch_tokens", simulated.micro_batch_tokens},
      {"policy", simulated.policy}};
  if (!result.status.ok()) {
    row["error"] = std::string(result.status.message());
    return row;
  }
  row["step_seconds"] = result.step_seconds;
  row["tokens_per_second"] = result.tokens_per_second;
  row["speedup_over_static"] = Number(speedup);
  const RankTimes& shares = result.shares;
  row["shares"] = {{"busy", shares.busy},
                   {"group_wait", shares.group_wait},
                   {"exposed_transfer", shares.exposed_transfer},
                   {"stage_wait", shares.stage_wait},
                   {"idle", shares.idle},
                   {"update", shares.update}};
  return row;
}

void PrintJson(const nlohmann::ordered_json& object) { std::puts(object.dump(2).c_str()); }

// The contexts in the order they were asked for.
absl::StatusOr<std::vector<SimulationCase>> CasesOf(const SimulateArguments& arguments,
                                                    const SimulationRequest& simulation) {
  SimulationCase simulated;
  simulated.simulation = simulation;
  const absl::StatusOr<int64_t> tokens = ParseTokens("--tokens", arguments.tokens);
  if (!tokens.ok()) return tokens.status();
  simulated.tokens = *tokens;
  const absl::StatusOr<int64_t> capacity =
      ParseTokens("--micro-batch-tokens", arguments.micro_batch_tokens);
  if (!capacity.ok()) return capacity.status();
  simulated.micro_batch_tokens = *capacity;
  std::vector<SimulationCase> cases;
  for (const std::string& mix : arguments.mixes) {
    for (const std::string& text : arguments.contexts) {
      const absl::StatusOr<int64_t> context = ParseTokens("--context", text);
      if (!context.ok()) return context.status();
      for (const int ranks : arguments.ranks) {
        for (const std::string& policy : arguments.policies) {
          simulated.mix = mix;
          simulated.context = *context;
          simulated.ranks = ranks;
          simulated.policy = policy;
          if (absl::Status status = CheckCase(simulated); !status.ok()) return status;
          cases.push_back(simulated);
        }
      }
    }
  }
  return cases;
}

// That of the same mix, context and ranks; -1: static was not asked for.
int64_t StaticCase(const std::vector<SimulationCase>& cases, const SimulationCase& simulated) {
  for (size_t i = 0; i < cases.size(); ++i) {
    if (cases[i].policy == "static" && cases[i].mix == simulated.mix &&
        cases[i].context == simulated.context && cases[i].ranks == simulated.ranks) {
      return static_cast<int64_t>(i);
    }
  }
  return -1;
}

std::string PlotOf(const SimulateArguments& arguments, const std::vector<SimulationCase>& cases,
                   const std::vector<double>& speedups) {
  std::vector<SpeedupPanel> panels;
  for (const std::string& mix : arguments.mixes) {
    SpeedupPanel& panel = panels.emplace_back();
    panel.title = mix;
    for (const int ranks : arguments.ranks) {
      for (const std::string& policy : arguments.policies) {
        SpeedupCurve curve;
        curve.label = absl::StrCat(policy, ", ", ranks, " ranks");
        curve.color = static_cast<int>(panel.curves.size());
        for (size_t i = 0; i < cases.size(); ++i) {
          if (cases[i].mix == mix && cases[i].ranks == ranks && cases[i].policy == policy) {
            curve.values.push_back(speedups[i]);
          }
        }
        panel.curves.push_back(std::move(curve));
      }
    }
  }
  std::vector<std::string> ticks;
  for (const std::string& context : arguments.contexts) {
    ticks.push_back(TokensText(*ParseTokens("--context", context)));
  }
  return SpeedupPlot(ticks, panels);
}

absl::Status SimulateCases(const SimulateArguments& arguments,
                           const SimulationRequest& simulation) {
  const absl::StatusOr<std::vector<SimulationCase>> cases = CasesOf(arguments, simulation);
  if (!cases.ok()) return cases.status();
  const std::vector<SimulationResult> results = RunWithProgress(*cases, arguments);
  std::vector<double> speedups;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (size_t i = 0; i < cases->size(); ++i) {
    const int64_t baseline = StaticCase(*cases, (*cases)[i]);
    speedups.push_back(baseline < 0 ? 0 : Speedup(results[baseline], results[i]));
    rows.push_back(ResultJson((*cases)[i], results[i], speedups.back()));
  }
  if (!arguments.svg.empty()) {
    const absl::Status status = WriteSvg(arguments.svg, PlotOf(arguments, *cases, speedups));
    if (!status.ok()) return status;
  }
  if (arguments.json) {
    PrintJson({{"batches", arguments.batches}, {"seed", arguments.seed}, {"rows", rows}});
    return absl::OkStatus();
  }
  std::printf("%-10s %8s %6s %-10s %10s %8s   %6s %6s %8s %6s %6s %6s %12s\n", "mix", "context",
              "ranks", "policy", "step", "speed-up", "busy", "group", "transfer", "stages", "idle",
              "update", "tokens/s");
  for (size_t i = 0; i < cases->size(); ++i) {
    const SimulationCase& simulated = (*cases)[i];
    const SimulationResult& result = results[i];
    std::printf("%-10s %8s %6d %-10s ", simulated.mix.c_str(),
                TokensText(simulated.context).c_str(), simulated.ranks, simulated.policy.c_str());
    if (!result.status.ok()) {
      std::printf("%s\n", std::string(result.status.message()).c_str());
      continue;
    }
    const RankTimes& shares = result.shares;
    std::printf("%8.3f s %8s   %5.1f%% %5.1f%% %7.1f%% %5.1f%% %5.1f%% %5.1f%% %12.4g\n",
                result.step_seconds, SpeedupText(speedups[i]).c_str(), 100 * shares.busy,
                100 * shares.group_wait, 100 * shares.exposed_transfer, 100 * shares.stage_wait,
                100 * shares.idle, 100 * shares.update, result.tokens_per_second);
  }
  std::printf(
      "\nMeans over batches of %s tokens: %d. Speed-up: over static. Of the ranks' time: busy; "
      "waiting "
      "for the group,\nfor keys and values, for other pipeline stages; with nothing left to do; "
      "reducing gradients and updating.\n",
      TokensText((*cases)[0].tokens).c_str(), arguments.batches);
  return absl::OkStatus();
}

struct Figure17Point {
  double published = 0, bytescale = 0, skyline = 0;  // speed-ups; 0: none
};

std::string Figure17Plot(const std::vector<Figure17Curve>& curves,
                         const std::vector<std::vector<Figure17Point>>& points) {
  std::vector<SpeedupPanel> panels;
  int cluster = 0;
  for (size_t c = 0; c < curves.size(); ++c) {
    if (panels.empty() || panels.back().title != curves[c].mix) {
      panels.push_back({curves[c].mix, {}});
      cluster = 0;
    }
    const std::string name =
        absl::StrFormat("%s, %d GPUs, %d stage%s", curves[c].model, curves[c].gpus,
                        curves[c].stages, curves[c].stages == 1 ? "" : "s");
    SpeedupCurve ours{absl::StrCat(name, ": ByteScale's policy, simulated")};
    SpeedupCurve published{absl::StrCat(name, ": published"), true};
    ours.color = published.color = cluster++;
    for (const Figure17Point& point : points[c]) {
      ours.values.push_back(point.bytescale);
      published.values.push_back(point.published);
    }
    const bool known = published.values[0] > 0;
    panels.back().curves.push_back(std::move(ours));
    if (known) panels.back().curves.push_back(std::move(published));
  }
  std::vector<std::string> ticks;
  for (const int64_t context : kFigure17Contexts) ticks.push_back(TokensText(context));
  return SpeedupPlot(ticks, panels);
}

absl::Status SimulateFigure17(const SimulateArguments& arguments) {
  const std::vector<Figure17Curve> curves = Figure17Curves();
  std::vector<SimulationCase> cases;
  for (const Figure17Curve& curve : curves) {
    for (const auto* of : {&curve.baseline, &curve.bytescale, &curve.skyline}) {
      cases.insert(cases.end(), of->begin(), of->end());
    }
  }
  for (SimulationCase& simulated : cases) {
    simulated.simulation.jitter = {arguments.jitter, arguments.jitter, arguments.seed};
    if (absl::Status status = CheckCase(simulated); !status.ok()) return status;
  }
  const std::vector<SimulationResult> results = RunWithProgress(cases, arguments);
  constexpr size_t kContexts = kFigure17Contexts.size();
  std::vector<std::vector<Figure17Point>> points;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (size_t c = 0; c < curves.size(); ++c) {
    auto& of_curve = points.emplace_back();
    for (size_t i = 0; i < kContexts; ++i) {
      const size_t first = c * 3 * kContexts + i;
      const auto speedup = [&](size_t policy) {
        return Speedup(results[first], results[first + policy * kContexts]);
      };
      of_curve.push_back({curves[c].published[i], speedup(1), speedup(2)});
      for (size_t policy = 0; policy < 3; ++policy) {
        const size_t at = first + policy * kContexts;
        auto row = ResultJson(cases[at], results[at], speedup(policy));
        row["model"] = curves[c].model;
        row["gpus"] = curves[c].gpus;
        row["tensor_parallel"] = curves[c].tensor_parallel;
        row["published"] = Number(curves[c].published[i]);
        rows.push_back(std::move(row));
      }
    }
  }
  if (!arguments.svg.empty()) {
    const absl::Status status = WriteSvg(arguments.svg, Figure17Plot(curves, points));
    if (!status.ok()) return status;
  }
  if (arguments.json) {
    PrintJson({{"batches", arguments.batches}, {"seed", arguments.seed}, {"rows", rows}});
    return absl::OkStatus();
  }
  std::printf(
      "Speed-up over static: published by ByteScale / ByteScale's policy, simulated / skyline, "
      "simulated\n\n%-7s %-14s %6s %3s %7s %6s",
      "mix", "model", "GPUs", "TP", "stages", "ranks");
  for (const int64_t context : kFigure17Contexts) {
    std::printf(" %18s", TokensText(context).c_str());
  }
  std::printf("\n");
  for (size_t c = 0; c < curves.size(); ++c) {
    const Figure17Curve& curve = curves[c];
    std::printf("%-7s %-14s %6d %3d %7d %6d", curve.mix.c_str(), curve.model.c_str(), curve.gpus,
                curve.tensor_parallel, curve.stages, curve.baseline[0].ranks);
    for (const Figure17Point& point : points[c]) {
      std::printf(" %6s/%5s/%5s", SpeedupText(point.published).c_str(),
                  SpeedupText(point.bytescale).c_str(), SpeedupText(point.skyline).c_str());
    }
    std::printf("\n");
  }
  std::printf(
      "\nMeans over batches of 32M tokens, 8K a rank: %d. -: not known to us. TP: "
      "tensor-parallel "
      "degree; a rank is\nthat many GPUs, with stages a pipeline of them.\n",
      arguments.batches);
  return absl::OkStatus();
}

bool CostGiven(const CostOptions& cost) {
  return !cost.file.empty() || !cost.gpu.empty() || !cost.model.empty() ||
         cost.tensor_parallel != 0;
}

absl::Status Simulate(const SimulateArguments& arguments) {
  if (arguments.figure_17) {
    const bool costs = CostGiven(arguments.cost);
    if (arguments.given.empty() && !costs) return SimulateFigure17(arguments);
    return absl::InvalidArgumentError(
        absl::StrCat("simulate: --figure-17 sets ", costs ? "costs" : arguments.given[0],
                     " itself; with it go --batches, --seed, --jitter, --json and --svg"));
  }
  const absl::StatusOr<ChosenCost> chosen = ChooseCost(arguments.cost);
  if (!chosen.ok()) return chosen.status();
  std::fputs(chosen->assumptions.c_str(), stderr);
  SimulationRequest simulation;
  simulation.cost = chosen->cost;
  simulation.stages = arguments.stages;
  simulation.jitter = {arguments.jitter, arguments.jitter, arguments.seed};
  double parameters = arguments.parameters;
  if (parameters < 0) {
    parameters = CostGiven(arguments.cost) ? 0 : kCaseStudyParameters;
    if (parameters == 0) {
      std::fputs("  gradients are not reduced: --parameters N says how many a rank has\n", stderr);
    }
  }
  simulation.update = AnalyticUpdateModel(parameters, arguments.link_bytes_per_second,
                                          arguments.gradient_wire == "bf16" ? 2 : 4);
  return SimulateCases(arguments, simulation);
}

}  // namespace

void RegisterSimulateCommand(const Command& root, SelectedCommand* selected) {
  const Command command = root.AddCommand(
      "simulate", "Runs policies on clusters that nobody has: step time, waits, speed-ups");
  command.Footer(kFooter);
  const auto arguments = std::make_shared<SimulateArguments>();
  std::vector<CommandOption> sweep;
  const auto list = [&](const char* name, auto& values, const std::string& help, const char* type) {
    sweep.push_back(
        command.AddOption(name, values, help).CommaSeparated().ValueName(type).ShowDefault());
  };
  const auto text = [](const std::vector<std::string>& names) {
    std::string joined;
    for (const std::string& name : names)
      absl::StrAppend(&joined, joined.empty() ? "" : ", ", name);
    return joined;
  };
  list("--mix", arguments->mixes, absl::StrCat("Length mixes: ", text(LengthMixes())), "LIST");
  list("--policy", arguments->policies, absl::StrCat("Policies: ", text(SimulationPolicies())),
       "LIST");
  list("--ranks", arguments->ranks, "Ranks; with --stages each is a pipeline", "LIST");
  sweep.back().InRange(1, 1 << 20);
  list("--context", arguments->contexts,
       "Longer sequences are cut into pieces of so many tokens; 0: as drawn", "LIST");
  const auto one = [&](const char* name, auto& value, const char* help, const char* type) {
    return command.AddOption(name, value, help).ValueName(type).ShowDefault();
  };
  sweep.push_back(one("--tokens", arguments->tokens, "Tokens of a batch", "N"));
  sweep.push_back(one("--micro-batch-tokens", arguments->micro_batch_tokens,
                      "Tokens that a rank holds at a time", "N"));
  sweep.push_back(one("--stages", arguments->stages, "Stages of a pipeline, which run 1F1B", "N"));
  sweep.push_back(command
                      .AddOption("--parameters", arguments->parameters,
                                 "Parameters of a rank, whose gradients are reduced (without a "
                                 "choice of costs 3.4e9)")
                      .ValueName("N")
                      .NonNegative());
  sweep.push_back(one("--link-bytes-per-second", arguments->link_bytes_per_second,
                      "Of a rank, each direction, for gradients and parameters", "X"));
  sweep.push_back(one("--gradient-wire", arguments->gradient_wire,
                      "What gradients travel as, \"f32\" or \"bf16\" (optimizer.wire)", "TYPE"));
  sweep.back().OneOf({"f32", "bf16"});
  AddCostOptions(command, arguments->cost);
  one("--batches", arguments->batches, "Batches of each case; results are means", "N")
      .InRange(1, 1000000);
  one("--seed", arguments->seed, "Of the first batch; the next ones count up", "N");
  one("--jitter", arguments->jitter,
      "Spread of the speeds of ranks, and of micro-batches: standard deviation of its logarithm",
      "X");
  command.AddFlag(
      "--figure-17", arguments->figure_17,
      "ByteScale's Figure 17: five models and clusters, its published numbers beside ours");
  command.AddFlag("--json", arguments->json, "Print the rows as JSON");
  command.AddOption("--svg", arguments->svg, "Also plot speed-up over static by context")
      .ValueName("FILE");
  command.OnChosen([arguments, selected, sweep] {
    for (const CommandOption& option : sweep) {
      if (option.given()) arguments->given.push_back(option.name());
    }
    *selected = [arguments] { return Simulate(*arguments); };
  });
}

}  // namespace longspan
