// Trace files: the timelines of all ranks in the JSON that ui.perfetto.dev and chrome://tracing
// open (the "Trace Event Format").
//
// One object: "displayTimeUnit", "otherData" (format "longspan-trace", version 1, ranks, first and
// last step, dropped events) and "traceEvents", one a line. A rank is a process (pid); its rows are
// threads (tid): host, the streams, the planner, transfers. Spans are complete events (ph "X") with
// ts and dur in microseconds of rank 0's clock, cat (Name(TraceKind)) and args; spans of one row
// nest. Transfers that overlap are spread over several rows.
#ifndef LONGSPAN_RUNTIME_TRACE_TRACE_FILE_H_
#define LONGSPAN_RUNTIME_TRACE_TRACE_FILE_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device/trace.h"

namespace longspan {

// What one rank recorded, as it travels to rank 0. Names are indices into `names`.
struct RankTimeline {
  struct Span {
    int32_t name = 0, kind = 0, row = 0;
    int32_t step = -1, micro_batch = -1, layer = -1, ring_step = -1, to = -1, from = -1;
    int64_t sent_bytes = -1, received_bytes = -1;
    int64_t begin_ns = 0, end_ns = 0;
  };
  int rank = 0;
  std::string host;
  std::vector<std::string> rows, names;
  std::vector<Span> spans;
  int64_t dropped = 0;

  static RankTimeline Of(int rank, TraceRecorder& recorder);  // takes what it has recorded
  // For ranks of one program on one kind of machine.
  std::string Encode() const;
  static absl::StatusOr<RankTimeline> Decode(const std::string& bytes);
};

// Writes FILE.partial, which Close renames to FILE; destroyed before, it leaves nothing.
class TraceFile {
 public:
  // Makes the directories above `path`. Errors name the path.
  static absl::StatusOr<std::unique_ptr<TraceFile>> Create(const std::string& path);
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  // Times in the file count from `zero_ns`.
  void Add(RankTimeline timeline, int64_t zero_ns);
  // Bytes of the finished file.
  absl::StatusOr<int64_t> Close(int64_t first_step, int64_t last_step);
  int64_t spans() const { return spans_; }

 private:
  TraceFile(std::string path, std::FILE* file);
  void Line(const std::string& text);

  const std::string path_, partial_;
  std::FILE* file_;
  bool first_line_ = true;
  int ranks_ = 0;
  int64_t spans_ = 0, dropped_ = 0, bytes_ = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRACE_TRACE_FILE_H_
