#include "runtime/trace/trace_summary.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/trace.h"
#include "nlohmann/json.hpp"

namespace longspan {
namespace {

using Json = nlohmann::json;

struct Interval {
  double begin = 0, end = 0;  // seconds
};

struct RankIntervals {
  std::array<std::vector<Interval>, kTraceParts> by_part;
  std::map<int64_t, Interval> steps;
  std::map<int64_t, std::vector<Interval>> reductions;  // by step
  std::vector<Interval> transfers;
  RankSummary summary;
};

// What the main line is at where several of its spans cover one moment: the first of these.
constexpr TracePart kByPriority[] = {
    TracePart::kEvaluation, TracePart::kRingWait, TracePart::kImbalance,  TracePart::kReduction,
    TracePart::kUpdate,     TracePart::kCompute,  TracePart::kCheckpoint, TracePart::kData,
    TracePart::kPlan,       TracePart::kOther};

class TraceReader {
 public:
  // An event of the file; what is wrong with it, or "".
  std::string Take(const Json& event) {
    if (!event.is_object()) return "is not an object";
    if (!event.contains("ph") || !event["ph"].is_string()) return "has no \"ph\"";
    if (event["ph"] != "X") return "";
    for (const char* key : {"pid", "tid", "ts", "dur"}) {
      if (!event.contains(key) || !event[key].is_number())
        return absl::StrCat("has no number \"", key, "\"");
    }
    if (!event.contains("cat") || !event["cat"].is_string()) return "has no \"cat\"";
    const double begin = event["ts"].get<double>() * 1e-6;
    const Interval span{begin, begin + event["dur"].get<double>() * 1e-6};
    if (!(span.end >= span.begin) || !std::isfinite(span.end)) return "lasts less than nothing";
    const int64_t rank = event["pid"];
    if (rank < 0 || rank >= (1 << 20)) return "has a \"pid\" that is no rank";
    const std::string category = event["cat"];
    if (category == Name(TraceKind::kKernel)) return "";
    const auto argument = [&](const char* key) -> int64_t {
      if (!event.contains("args") || !event["args"].is_object()) return -1;
      const auto found = event["args"].find(key);
      return found != event["args"].end() && found->is_number_integer() ? found->get<int64_t>()
                                                                        : -1;
    };
    const bool planner = event["tid"] == static_cast<int>(TraceRecorder::kPlannerRow);
    Add(ranks_[static_cast<int>(rank)], category, span, planner, argument);
    return "";
  }

  absl::StatusOr<TraceSummary> Summary(int64_t dropped) {
    TraceSummary summary;
    summary.dropped_events = dropped;
    SplitReductions();
    std::map<int64_t, StepSummary> steps;
    for (auto& [rank, intervals] : ranks_) {
      if (intervals.steps.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " has no steps"));
      }
      intervals.summary.rank = rank;
      MeasureTransfers(intervals);
      MeasureParts(intervals, steps);
      summary.ranks.push_back(intervals.summary);
    }
    if (summary.ranks.empty()) return absl::InvalidArgumentError("it has no steps");
    for (auto& [number, step] : steps) {
      for (double& seconds : step.parts.seconds) {
        seconds /= static_cast<double>(summary.ranks.size());
      }
      summary.steps.push_back(step);
    }
    return summary;
  }

 private:
  template <typename Argument>
  static void Add(RankIntervals& rank, const std::string& category, const Interval& span,
                  bool planner, const Argument& argument) {
    const auto is = [&](TraceKind kind) { return category == Name(kind); };
    const auto part = [&](TracePart which) {
      rank.by_part[static_cast<int>(which)].push_back(span);
    };
    const double seconds = span.end - span.begin;
    if (is(TraceKind::kStep)) {
      rank.steps[argument("step")] = span;
      part(TracePart::kOther);
    } else if (is(TraceKind::kTask)) {
      part(TracePart::kCompute);
    } else if (is(TraceKind::kWait)) {
      // Others are of the update, or of a checkpoint's copies.
      if (argument("micro_batch") >= 0) part(TracePart::kRingWait);
    } else if (is(TraceKind::kReduction)) {
      rank.reductions[argument("step")].push_back(span);
      part(TracePart::kReduction);
    } else if (is(TraceKind::kUpdate)) {
      part(TracePart::kUpdate);
    } else if (is(TraceKind::kData)) {
      rank.summary.reading_seconds += seconds;
      part(TracePart::kData);
    } else if (is(TraceKind::kPlan)) {
      if (planner) {
        rank.summary.planning_seconds += seconds;
      } else {
        part(TracePart::kPlan);
      }
    } else if (is(TraceKind::kEvaluation)) {
      part(TracePart::kEvaluation);
    } else if (is(TraceKind::kCheckpoint)) {
      part(TracePart::kCheckpoint);
    } else if (is(TraceKind::kTransfer)) {
      rank.transfers.push_back(span);
      ++rank.summary.transfers;
      rank.summary.sent_bytes += std::max<int64_t>(0, argument("sent_bytes"));
      rank.summary.received_bytes += std::max<int64_t>(0, argument("received_bytes"));
    }
  }

  // Of each reduction, what lies before the last rank has come to it.
  void SplitReductions() {
    std::map<std::pair<int64_t, size_t>, double> last;
    for (const auto& [rank, intervals] : ranks_) {
      for (const auto& [step, spans] : intervals.reductions) {
        for (size_t i = 0; i < spans.size(); ++i) {
          const auto [found, is_new] = last.try_emplace({step, i}, spans[i].begin);
          found->second = std::max(found->second, spans[i].begin);
        }
      }
    }
    for (auto& [rank, intervals] : ranks_) {
      for (const auto& [step, spans] : intervals.reductions) {
        for (size_t i = 0; i < spans.size(); ++i) {
          const double end = std::min(spans[i].end, last.at({step, i}));
          if (end <= spans[i].begin) continue;
          intervals.by_part[static_cast<int>(TracePart::kImbalance)].push_back(
              {spans[i].begin, end});
        }
      }
    }
  }

  // Calls visit(begin, end, covered) for the pieces between the ends of `lists`' intervals;
  // covered[i]: whether one of list i covers the piece.
  template <typename Visit>
  static void Sweep(const std::vector<const std::vector<Interval>*>& lists, const Visit& visit) {
    struct End {
      double at;
      int list, change;
    };
    std::vector<End> ends;
    for (size_t list = 0; list < lists.size(); ++list) {
      for (const Interval& interval : *lists[list]) {
        ends.push_back({interval.begin, static_cast<int>(list), 1});
        ends.push_back({interval.end, static_cast<int>(list), -1});
      }
    }
    std::sort(ends.begin(), ends.end(), [](const End& a, const End& b) { return a.at < b.at; });
    std::vector<int> covered(lists.size(), 0);
    for (size_t i = 0; i < ends.size(); ++i) {
      covered[ends[i].list] += ends[i].change;
      if (i + 1 < ends.size() && ends[i + 1].at > ends[i].at) {
        visit(ends[i].at, ends[i + 1].at, covered);
      }
    }
  }

  static void MeasureTransfers(RankIntervals& rank) {
    const auto& waits = rank.by_part[static_cast<int>(TracePart::kRingWait)];
    Sweep({&rank.transfers, &waits},
          [&](double begin, double end, const std::vector<int>& covered) {
            if (covered[0] == 0) return;
            rank.summary.transfer_seconds += end - begin;
            if (covered[1] == 0) rank.summary.hidden_transfer_seconds += end - begin;
          });
  }

  static void MeasureParts(RankIntervals& rank, std::map<int64_t, StepSummary>& steps) {
    // A step's boundaries cut the others' pieces: all steps are in the list of kOther.
    std::vector<std::pair<Interval, int64_t>> ordered;
    for (const auto& [number, interval] : rank.steps) {
      ordered.emplace_back(interval, number);
      rank.summary.step_seconds += interval.end - interval.begin;
      StepSummary& step = steps[number];
      step.step = number;
      step.seconds = std::max(step.seconds, interval.end - interval.begin);
    }
    std::sort(ordered.begin(), ordered.end(),
              [](const auto& a, const auto& b) { return a.first.begin < b.first.begin; });
    std::vector<const std::vector<Interval>*> lists;
    for (const TracePart part : kByPriority) {
      lists.push_back(&rank.by_part[static_cast<int>(part)]);
    }
    size_t at = 0;
    Sweep(lists, [&](double begin, double end, const std::vector<int>& covered) {
      const auto first = std::find_if(covered.begin(), covered.end(), [](int n) { return n > 0; });
      if (first == covered.end()) return;
      const TracePart part = kByPriority[first - covered.begin()];
      rank.summary.parts[part] += end - begin;
      while (at < ordered.size() && ordered[at].first.end <= begin) ++at;
      if (at < ordered.size() && ordered[at].first.begin <= begin) {
        steps[ordered[at].second].parts[part] += end - begin;
      }
    });
  }

  std::map<int, RankIntervals> ranks_;
};

}  // namespace

const char* Name(TracePart part) {
  constexpr const char* kNames[kTraceParts] = {"compute",    "ring_wait", "imbalance", "reduction",
                                               "update",     "data",      "plan",      "checkpoint",
                                               "evaluation", "other"};
  return kNames[static_cast<int>(part)];
}

double PartSeconds::total() const { return std::accumulate(seconds.begin(), seconds.end(), 0.0); }

PartSeconds TraceSummary::parts() const {
  PartSeconds sum;
  for (const RankSummary& rank : ranks) {
    for (int part = 0; part < kTraceParts; ++part) sum.seconds[part] += rank.parts.seconds[part];
  }
  return sum;
}

int64_t TraceSummary::sent_bytes() const {
  return std::accumulate(ranks.begin(), ranks.end(), int64_t{0},
                         [](int64_t sum, const RankSummary& r) { return sum + r.sent_bytes; });
}

double TraceSummary::hidden_transfer_share() const {
  double all = 0, hidden = 0;
  for (const RankSummary& rank : ranks) {
    all += rank.transfer_seconds;
    hidden += rank.hidden_transfer_seconds;
  }
  return all > 0 ? hidden / all : 1;
}

int TraceSummary::busiest() const {
  return static_cast<int>(std::max_element(ranks.begin(), ranks.end(),
                                           [](const RankSummary& a, const RankSummary& b) {
                                             return a.parts[TracePart::kCompute] <
                                                    b.parts[TracePart::kCompute];
                                           }) -
                          ranks.begin());
}

int TraceSummary::idlest() const {
  return static_cast<int>(std::min_element(ranks.begin(), ranks.end(),
                                           [](const RankSummary& a, const RankSummary& b) {
                                             return a.parts[TracePart::kCompute] <
                                                    b.parts[TracePart::kCompute];
                                           }) -
                          ranks.begin());
}

double TraceSummary::median_step_seconds() const {
  std::vector<double> seconds;
  for (const StepSummary& step : steps) seconds.push_back(step.seconds);
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

std::vector<int> TraceSummary::worst_steps(int count) const {
  std::vector<int> order(steps.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return steps[a].seconds > steps[b].seconds; });
  if (order.size() > static_cast<size_t>(count)) order.resize(count);
  return order;
}

absl::StatusOr<TraceSummary> ReadTraceSummary(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot read: ", std::strerror(errno)));
  }
  const auto wrong = [&](const std::string& what) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a trace of longspan train --trace: ", what));
  };
  TraceReader reader;
  std::string problem;
  std::string key;  // of the outermost object
  int64_t events = 0;
  // Each event is forgotten as soon as it is taken: files may be much larger than memory allows
  // their values to be.
  const auto callback = [&](int depth, Json::parse_event_t kind, Json& value) {
    if (kind == Json::parse_event_t::key && depth == 1) key = value.get<std::string>();
    if (kind != Json::parse_event_t::object_end || depth != 2 || key != "traceEvents") return true;
    ++events;
    if (problem.empty()) {
      problem = reader.Take(value);
      if (!problem.empty()) problem = absl::StrCat("event ", events, " ", problem);
    }
    return false;
  };
  Json root;
  try {
    root = Json::parse(file, callback);
  } catch (const Json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 3, column 7: ..."
    const std::string text = error.what();
    return wrong(
        absl::StrCat("no JSON: ", text.substr(std::min(text.size(), text.find("] ") + 2))));
  }
  if (!root.is_object() || !root.contains("traceEvents") || !root["traceEvents"].is_array()) {
    return wrong("it has no \"traceEvents\"");
  }
  const Json other = root.contains("otherData") ? root["otherData"] : Json();
  if (!other.is_object() || !other.contains("format") || other["format"] != "longspan-trace") {
    return wrong("\"otherData\" does not say format \"longspan-trace\"");
  }
  if (!other.contains("version") || other["version"] != 1) {
    return wrong(absl::StrCat("version ", other.contains("version") ? other["version"].dump() : "?",
                              " is not known to this build, which reads version 1"));
  }
  if (!problem.empty()) return wrong(problem);
  const bool dropped =
      other.contains("dropped_events") && other["dropped_events"].is_number_integer();
  absl::StatusOr<TraceSummary> summary =
      reader.Summary(dropped ? other["dropped_events"].get<int64_t>() : 0);
  if (!summary.ok()) return wrong(std::string(summary.status().message()));
  return summary;
}

}  // namespace longspan
