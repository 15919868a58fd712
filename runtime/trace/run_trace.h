// RunTrace: the trace of a training run, from the first traced step to the file.
#ifndef LONGSPAN_RUNTIME_TRACE_RUN_TRACE_H_
#define LONGSPAN_RUNTIME_TRACE_RUN_TRACE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "kernels/device/stream.h"
#include "kernels/device/trace.h"
#include "parallel/transport/transport.h"
#include "runtime/metrics/run_log.h"
#include "runtime/trace/trace_file.h"

namespace longspan {

struct TraceOptions {
  // Steps that are traced where the user names none: enough to see the balance.
  static constexpr int64_t kDefaultSteps = 10;

  std::string file;  // "": no trace
  // Steps of the run, counted from 1, both included; 0: the first kDefaultSteps of this call.
  int64_t from_step = 0, to_step = 0;
};

// Every rank records by itself, at most 2M events on all ranks together; when the last traced step
// is over, or the run ends, clocks are brought together and rank 0 writes the file, one rank's part
// in memory at a time. The calls are collective, on one thread, with `stream` idle. A file that
// cannot be written costs the run nothing but a warning, except at the start.
class RunTrace {
 public:
  // `transport`, `device` and `log` outlive it. Gives `device` a recorder.
  RunTrace(const TraceOptions& options, Transport& transport, Device& device);
  // Takes the recorder away again.
  ~RunTrace();
  RunTrace(const RunTrace&) = delete;
  RunTrace& operator=(const RunTrace&) = delete;

  // `next_step`: the first one that this call runs. InvalidArgument when the traced steps are over
  // by then; on all ranks, when rank 0 cannot write the file.
  absl::Status Start(int64_t next_step, Stream& stream, RunLog& log);
  // Before step `step`, whose records begin here; writes the file when the step before was the last
  // one traced.
  absl::Status BeginStep(int64_t step, Stream& stream, RunLog& log);
  // Writes the file if that has not been done.
  absl::Status Finish(Stream& stream, RunLog& log);

 private:
  absl::Status Write(Stream& stream, RunLog& log);
  absl::StatusOr<int64_t> OffsetOf(Stream& stream);

  TraceOptions options_;
  Transport& transport_;
  Device& device_;
  std::shared_ptr<TraceRecorder> recorder_;  // nullptr: no trace, or it is written
  std::unique_ptr<TraceFile> file_;          // rank 0 alone
  int64_t zero_ns_ = 0;                      // rank 0's clock at the start
  int64_t started_ns_ = 0, start_offset_ns_ = 0;
  int64_t first_step_ = 0, last_step_ = 0;  // recorded
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRACE_RUN_TRACE_H_
