// `longspan trace`: what the files of `longspan train --trace` say.
#include <cstdio>
#include <memory>
#include <string>

#include "launch/command_line.h"
#include "launch/commands.h"
#include "runtime/trace/trace_summary.h"

namespace longspan {
namespace {

constexpr char kFooter[] =
    "Examples:\n"
    "  longspan train my.toml --ranks 2 --trace runs/my/traces/first.json\n"
    "  longspan trace summary runs/my/traces/first.json\n"
    "  longspan trace summary runs/my/traces/first.json --json\n"
    "The file itself opens in ui.perfetto.dev and in chrome://tracing.";

struct Options {
  std::string file;
  bool json = false;
};

absl::Status PrintSummary(const Options& options) {
  const absl::StatusOr<TraceSummary> summary = ReadTraceSummary(options.file);
  if (!summary.ok()) return summary.status();
  std::fputs((options.json ? SummaryJson(*summary) : SummaryText(*summary)).c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

void RegisterTraceCommand(const Command& root, SelectedCommand* selected) {
  const Command trace = root.AddCommand("trace", "Sums up the timelines of train --trace");
  trace.RequireCommand();
  trace.Footer(kFooter);
  const Command summary =
      trace.AddCommand("summary", "Where the time went: by rank, in all, the worst steps");
  summary.Footer(kFooter);
  const auto options = std::make_shared<Options>();
  summary.AddOption("FILE", options->file, "a file that train --trace wrote").Required();
  summary.AddFlag("--json", options->json, "Print seconds, bytes and shares as one JSON object");
  summary.OnChosen(
      [options, selected] { *selected = [options] { return PrintSummary(*options); }; });
}

}  // namespace longspan
