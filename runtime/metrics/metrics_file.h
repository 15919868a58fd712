// MetricsFile: metrics.jsonl, one object a line, written by rank 0.
//
// After a resume later lines of an abandoned attempt are superseded: for a step, the line with the
// highest "attempt" counts.
#ifndef LONGSPAN_RUNTIME_METRICS_METRICS_FILE_H_
#define LONGSPAN_RUNTIME_METRICS_METRICS_FILE_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"

namespace longspan {

// One step's figures. Seconds are wall time of the slowest view (rank 0's clock).
struct StepMetrics {
  int64_t step = 0;     // 1 for the first update
  int64_t attempt = 0;  // the run's generation
  double loss = 0;      // mean over the step's targets
  double rate = 0;
  double gradient_norm = 0;  // before clipping
  double clip_factor = 1;
  int64_t non_finite = 0;
  bool skipped = false;
  int64_t tokens = 0;  // targets of this step
  int64_t sequences = 0;
  int64_t longest = 0;  // tokens of the longest sequence
  int64_t groups = 0;   // sequences shared by several ranks
  double seconds = 0;
  double tokens_per_second = 0;
  double flops_per_second = 0;  // model FLOP/s, counted as "causal"
  double peak_share = 0;        // of ranks * measured peak
  double busy_max_over_mean = 1;
  double cpu_max_over_mean = 1;  // of processor seconds: the balance where ranks share cores
  int64_t cost_version = 0;      // of the cost model planned with; 0: the run's first
  double planned_gap = 0;        // makespan over lower bound, minus 1
  double planned_makespan = 0;   // seconds, as the cost model has it
  double measured_makespan = 0;  // seconds of forward and backward on the rank that took longest
  std::map<std::string, double> phase_seconds;  // on rank 0
  std::map<std::string, int64_t> memory_bytes;  // by tag, this rank
  int64_t exchanged_bytes = 0;                  // sent by rank 0 in rings, this step
};

// One save, as rank 0 saw it. Zeros where a synchronous save has no such figure.
struct CheckpointMetrics {
  int64_t step = 0;
  int64_t attempt = 0;
  std::string tier;            // "memory", "local"; empty: the checkpoint directory
  int64_t bytes = 0;           // of rank 0's file
  double seconds = 0;          // from the request to the commit
  double blocked_seconds = 0;  // of that, of the training thread and its stream
  // Means of the steps that it was under way in, and of those so far that no save was under way in,
  // without what they were blocked for; 0: there was none.
  double step_seconds_beside = 0, step_seconds_alone = 0;
  double copy_seconds = 0;          // until the state had been copied, from when it was complete
  double write_seconds = 0;         // of the file, sync included
  double pool_seconds = 0;          // of copy_seconds: waiting for host memory
  double processor_seconds = 0;     // spent in the background
  int64_t checked_sums = 0;         // of what the update wrote, compared with what was saved
  int64_t backlog_bytes = 0;        // of older saves, not yet handed to the disk at the request
  int64_t skipped = 0, failed = 0;  // saves of this attempt so far
};

// Appends to `path`; a line is written whole or, after a crash, is the last and torn: readers skip
// it.
class MetricsFile {
 public:
  explicit MetricsFile(std::string path) : path_(std::move(path)) {}
  absl::Status Append(const StepMetrics& metrics);
  // {"evaluation": ...}: validation loss after `step` updates.
  absl::Status AppendEvaluation(int64_t step, int64_t attempt, double loss, int64_t tokens,
                                double seconds);
  absl::Status AppendCheckpoint(const CheckpointMetrics& save);

 private:
  absl::Status Write(const std::string& line);
  std::string path_;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_METRICS_METRICS_FILE_H_
