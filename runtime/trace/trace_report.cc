// A trace's summary as text and as JSON.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/metrics/run_log.h"
#include "runtime/trace/trace_summary.h"

namespace longspan {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int kWorstSteps = 3;
constexpr size_t kMostRanksShown = 16;
constexpr const char* kHeads[kTraceParts] = {"compute",  "ring wait", "imbalance", "reduce",
                                             "update",   "data",      "plan",      "checkp.",
                                             "evaluate", "other"};

std::string Bytes(int64_t bytes) { return ShortBytes(static_cast<double>(bytes)); }

// A line of the table: shares of a total.
std::string Line(const std::string& name, const PartSeconds& parts, double total,
                 const std::string& rest) {
  std::string line = absl::StrFormat("%8s %9.3f", name, total);
  for (const double seconds : parts.seconds) {
    absl::StrAppendFormat(&line, " %8.1f%%", total > 0 ? 100 * seconds / total : 0);
  }
  return absl::StrCat(line, rest, "\n");
}

double HiddenShare(const RankSummary& rank) {
  return rank.transfer_seconds > 0 ? rank.hidden_transfer_seconds / rank.transfer_seconds : 1;
}

// Which part makes a step longer than the median of that part, and by how much.
std::string ReasonOf(const StepSummary& step, const TraceSummary& summary) {
  int most = 0;
  double excess = 0;
  for (int part = 0; part < kTraceParts; ++part) {
    std::vector<double> all;
    for (const StepSummary& other : summary.steps) all.push_back(other.parts.seconds[part]);
    std::nth_element(all.begin(), all.begin() + all.size() / 2, all.end());
    const double more = step.parts.seconds[part] - all[all.size() / 2];
    if (more > excess) {
      excess = more;
      most = part;
    }
  }
  if (excess <= 0) return "no part stands out";
  return absl::StrFormat("%.3f s more %s than the median step", excess, kHeads[most]);
}

OrderedJson PartsJson(const PartSeconds& parts) {
  OrderedJson object = OrderedJson::object();
  for (int part = 0; part < kTraceParts; ++part) {
    object[Name(static_cast<TracePart>(part))] = parts.seconds[part];
  }
  return object;
}

}  // namespace

std::string SummaryText(const TraceSummary& summary) {
  std::string text =
      absl::StrFormat("%d %s, %d %s, median step %.3f s\n\n", summary.ranks.size(),
                      summary.ranks.size() == 1 ? "rank" : "ranks", summary.steps.size(),
                      summary.steps.size() == 1 ? "step" : "steps", summary.median_step_seconds());
  absl::StrAppendFormat(&text, "%8s %9s", "rank", "seconds");
  for (const char* head : kHeads) absl::StrAppendFormat(&text, " %9s", head);
  absl::StrAppendFormat(&text, " %11s %8s\n", "sent", "hidden");
  for (const RankSummary& rank : summary.ranks) {
    if (static_cast<size_t>(&rank - summary.ranks.data()) == kMostRanksShown) {
      absl::StrAppend(&text, "     and ", summary.ranks.size() - kMostRanksShown,
                      " more ranks: see --json\n");
      break;
    }
    text += Line(absl::StrCat(rank.rank), rank.parts, rank.parts.total(),
                 absl::StrFormat(" %11s %7.1f%%", Bytes(rank.sent_bytes), 100 * HiddenShare(rank)));
  }
  const PartSeconds all = summary.parts();
  text += Line("all", all, all.total(),
               absl::StrFormat(" %11s %7.1f%%", Bytes(summary.sent_bytes()),
                               100 * summary.hidden_transfer_share()));
  const RankSummary& busiest = summary.ranks[summary.busiest()];
  const RankSummary& idlest = summary.ranks[summary.idlest()];
  absl::StrAppendFormat(&text, "\nbusiest: rank %d, %.3f s of compute; idlest: rank %d, %.3f s\n",
                        busiest.rank, busiest.parts[TracePart::kCompute], idlest.rank,
                        idlest.parts[TracePart::kCompute]);
  double planning = 0, reading = 0;
  for (const RankSummary& rank : summary.ranks) {
    planning = std::max(planning, rank.planning_seconds);
    reading = std::max(reading, rank.reading_seconds);
  }
  absl::StrAppendFormat(&text,
                        "beside other work or not: planning %.3f s, reading %.3f s (of the rank "
                        "that took longest)\n",
                        planning, reading);
  for (const int index : summary.worst_steps(kWorstSteps)) {
    const StepSummary& step = summary.steps[index];
    absl::StrAppendFormat(&text, "step %d took %.3f s: %s\n", step.step, step.seconds,
                          ReasonOf(step, summary));
  }
  if (summary.dropped_events > 0) {
    absl::StrAppend(&text, "incomplete: ", summary.dropped_events,
                    " events did not fit into the trace, operators first\n");
  }
  absl::StrAppend(
      &text,
      "\nShares of each rank's time. ring wait: exposed, nothing to compute meanwhile; "
      "imbalance: at the reduction,\nbefore the slowest rank; data, plan, checkp.: where "
      "nothing else ran; hidden: share of the time with a\ntransfer under way in which "
      "the rank did not wait for it.\n");
  return text;
}

std::string SummaryJson(const TraceSummary& summary) {
  OrderedJson ranks = OrderedJson::array(), steps = OrderedJson::array();
  for (const RankSummary& rank : summary.ranks) {
    ranks.push_back({{"rank", rank.rank},
                     {"seconds", rank.parts.total()},
                     {"step_seconds", rank.step_seconds},
                     {"parts", PartsJson(rank.parts)},
                     {"transfers", rank.transfers},
                     {"sent_bytes", rank.sent_bytes},
                     {"received_bytes", rank.received_bytes},
                     {"transfer_seconds", rank.transfer_seconds},
                     {"hidden_transfer_share", HiddenShare(rank)},
                     {"planning_seconds", rank.planning_seconds},
                     {"reading_seconds", rank.reading_seconds}});
  }
  for (const StepSummary& step : summary.steps) {
    steps.push_back(
        {{"step", step.step}, {"seconds", step.seconds}, {"mean_parts", PartsJson(step.parts)}});
  }
  OrderedJson worst = OrderedJson::array();
  for (const int index : summary.worst_steps(kWorstSteps)) {
    worst.push_back(summary.steps[index].step);
  }
  const PartSeconds all = summary.parts();
  const OrderedJson object = {{"seconds", all.total()},
                              {"parts", PartsJson(all)},
                              {"sent_bytes", summary.sent_bytes()},
                              {"hidden_transfer_share", summary.hidden_transfer_share()},
                              {"busiest_rank", summary.ranks[summary.busiest()].rank},
                              {"idlest_rank", summary.ranks[summary.idlest()].rank},
                              {"median_step_seconds", summary.median_step_seconds()},
                              {"worst_steps", worst},
                              {"dropped_events", summary.dropped_events},
                              {"ranks", ranks},
                              {"steps", steps}};
  return object.dump() + "\n";
}

}  // namespace longspan
