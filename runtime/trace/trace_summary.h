// TraceSummary: where the time of a traced run went.
#ifndef LONGSPAN_RUNTIME_TRACE_TRACE_SUMMARY_H_
#define LONGSPAN_RUNTIME_TRACE_TRACE_SUMMARY_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

// What a rank's main line of work can be at, one at a time.
enum class TracePart : uint8_t {
  kCompute,     // forward and backward
  kRingWait,    // its stream waits for keys, values or gradients of others
  kImbalance,   // it is at the reduction, the slowest rank is not
  kReduction,   // gradients
  kUpdate,      // optimizer, and gathering of parameters
  kData,        // reads tokens while its stream has nothing to do
  kPlan,        // waits for a plan, likewise
  kCheckpoint,  // saves, likewise
  kEvaluation,
  kOther,  // of a step, or of what follows the last one
};
constexpr int kTraceParts = static_cast<int>(TracePart::kOther) + 1;
// "compute", "ring_wait", ...: keys of the JSON.
const char* Name(TracePart part);

// Seconds by TracePart.
struct PartSeconds {
  std::array<double, kTraceParts> seconds{};
  double& operator[](TracePart part) { return seconds[static_cast<int>(part)]; }
  double operator[](TracePart part) const { return seconds[static_cast<int>(part)]; }
  double total() const;
};

struct RankSummary {
  int rank = 0;
  PartSeconds parts;        // they add up to the time from its first step to its last save
  double step_seconds = 0;  // of that, within steps
  int64_t transfers = 0, sent_bytes = 0, received_bytes = 0;
  double transfer_seconds = 0;         // at least one exchange was under way
  double hidden_transfer_seconds = 0;  // of these, those in which the rank did not wait for one
  double planning_seconds = 0, reading_seconds = 0;  // in all, beside other work or not
};

struct StepSummary {
  int64_t step = 0;
  double seconds = 0;  // of the slowest rank
  PartSeconds parts;   // means over the ranks
};

struct TraceSummary {
  std::vector<RankSummary> ranks;  // by rank
  std::vector<StepSummary> steps;  // by number
  int64_t dropped_events = 0;

  PartSeconds parts() const;  // sums over the ranks
  int64_t sent_bytes() const;
  // Share of the time with a transfer under way in which no rank waited for it; 1 without
  // transfers.
  double hidden_transfer_share() const;
  // By share of compute; positions in `ranks`.
  int busiest() const;
  int idlest() const;
  double median_step_seconds() const;
  // Positions in `steps`, longest first, at most `count`.
  std::vector<int> worst_steps(int count) const;
};

// Reads a file of `longspan train --trace`. InvalidArgument, with the file's name and what is
// wrong, for anything else; NotFound where there is none. Memory does not grow with the operators
// in the file.
absl::StatusOr<TraceSummary> ReadTraceSummary(const std::string& path);

// For people, and for programs (one object, one line; docs: `longspan trace summary --help`).
std::string SummaryText(const TraceSummary& summary);
std::string SummaryJson(const TraceSummary& summary);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRACE_TRACE_SUMMARY_H_
