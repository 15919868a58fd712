// TraceRecorder: what one rank did and when, for a timeline that a person reads.
//
// A device has at most one recorder. Its streams then note when their work ran, transports when
// their messages travelled, and whoever opens a StreamSpan or a HostSpan adds a name above that.
// Without a recorder, or while it pauses, a span costs one comparison.
#ifndef LONGSPAN_KERNELS_DEVICE_TRACE_H_
#define LONGSPAN_KERNELS_DEVICE_TRACE_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/device/stream.h"

namespace longspan {

// What a span is counted as when a trace is summed up.
enum class TraceKind : uint8_t {
  kKernel,      // one work item of a stream
  kTask,        // a micro-batch and its parts
  kRing,        // a step of a ring
  kWait,        // a stream waits for an event
  kTransfer,    // an exchange, from its posting to its completion
  kStep,        // a training step with all that follows it
  kData,        // tokens are read
  kPlan,        // a plan is made, or waited for
  kReduction,   // gradients and figures are summed over ranks
  kUpdate,      // parameters are updated and gathered
  kEvaluation,  // the validation loss
  kCheckpoint,  // state is saved
};
constexpr int kTraceKinds = static_cast<int>(TraceKind::kCheckpoint) + 1;
// "kernel", "task", ...: the category in a trace file.
const char* Name(TraceKind kind);

// What a span says; numbers below zero say nothing.
struct TraceLabel {
  const char* name = "";  // static storage
  TraceKind kind = TraceKind::kKernel;
  int32_t step = -1;  // of training; plans and tokens: the step that they are for
  int32_t micro_batch = -1;
  int32_t layer = -1;
  int32_t ring_step = -1;
  int32_t to = -1, from = -1;  // peers of an exchange: the first of each side
  int64_t sent_bytes = -1, received_bytes = -1;

  // With the numbers that only `outer` has.
  TraceLabel Within(const TraceLabel& outer) const;
};

struct TraceEvent {
  TraceLabel label;
  int32_t row = 0;
  int64_t begin_ns = 0, end_ns = 0;  // TraceClock
};

// Nanoseconds of the steady clock, which all processes of a node share.
int64_t TraceClock();

// Thread-safe, but Pause and Resume are for moments at which no stream of the device has work.
class TraceRecorder {
 public:
  // Rows that every recorder has; streams and others add theirs behind them.
  enum Row : int { kHostRow, kPlannerRow, kTransferRow };

  // Keeps at most `max_events`; later ones are counted and dropped, kernels (the most numerous and
  // least missed) from three quarters of that on. Starts paused.
  explicit TraceRecorder(int64_t max_events);

  bool recording() const { return recording_.load(std::memory_order_relaxed); }
  void Resume() { recording_ = true; }
  void Pause() { recording_ = false; }
  // Labels without a step are of this one from now on.
  void set_step(int64_t step) { step_ = static_cast<int32_t>(step); }
  int32_t step() const { return step_.load(std::memory_order_relaxed); }

  // A row of the timeline; the same name gives the same row.
  int RowOf(const std::string& name);
  // Nothing while paused. Kernels and waits shorter than a microsecond are left out.
  void Record(TraceLabel label, int row, int64_t begin_ns, int64_t end_ns);

  std::vector<std::string> rows() const;
  int64_t dropped() const;
  // Hands over what has been recorded, in order of ends, and forgets it.
  std::vector<TraceEvent> Take();

 private:
  const int64_t max_events_;
  std::atomic<bool> recording_{false};
  std::atomic<int32_t> step_{-1};

  mutable std::mutex mutex_;
  std::vector<std::string> rows_;
  // Chunks, so that growing never copies while a stream waits for the lock.
  std::vector<std::vector<TraceEvent>> chunks_;
  int64_t events_ = 0, dropped_ = 0;
};

// The recorder of a device, or nullptr where nothing is to be recorded now.
inline TraceRecorder* RecorderOf(const Device& device) {
  TraceRecorder* trace = device.trace().get();
  return trace != nullptr && trace->recording() ? trace : nullptr;
}

// The work launched on a stream while this lives, timed when it runs. Spans of one stream nest and
// are opened on one thread. A GPU times its streams itself: what they have passed reaches the
// recorder by Device::CollectTrace.
class StreamSpan {
 public:
  StreamSpan(Stream& stream, const TraceLabel& label)
      : stream_(RecorderOf(stream.device()) != nullptr ? &stream : nullptr) {
    if (stream_ != nullptr) stream_->BeginSpan(label);
  }
  ~StreamSpan() {
    if (stream_ != nullptr) stream_->EndSpan();
  }
  StreamSpan(const StreamSpan&) = delete;
  StreamSpan& operator=(const StreamSpan&) = delete;

 private:
  Stream* stream_;
};

// The calling thread's time while this lives.
class HostSpan {
 public:
  // `recorder` may be nullptr.
  HostSpan(TraceRecorder* recorder, int row, const TraceLabel& label)
      : recorder_(recorder != nullptr && recorder->recording() ? recorder : nullptr),
        row_(row),
        label_(label),
        begin_ns_(recorder_ != nullptr ? TraceClock() : 0) {}
  // On the row kHostRow of `device`.
  HostSpan(const Device& device, const TraceLabel& label)
      : HostSpan(device.trace().get(), TraceRecorder::kHostRow, label) {}
  ~HostSpan() {
    if (recorder_ != nullptr) recorder_->Record(label_, row_, begin_ns_, TraceClock());
  }
  HostSpan(const HostSpan&) = delete;
  HostSpan& operator=(const HostSpan&) = delete;

 private:
  TraceRecorder* recorder_;
  const int row_;
  const TraceLabel label_;
  const int64_t begin_ns_;
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_TRACE_H_
