// Stream and Event: the order of work on a device.
//
// Work launched on one stream runs in launch order, asynchronously to the launching thread. An
// Event marks a point of a stream (or the end of a transfer); another stream, or the host, can wait
// for it. On the CPU a stream is a worker thread with a queue, and kernels spread over the device's
// ThreadPool.
//
// Failure is sticky, as on a GPU: once a stream has waited for a failed event, later work on it is
// skipped, and events recorded on it and Synchronize() report the first failure. So a dead peer
// ends a step with a message, never in a hang.
#ifndef LONGSPAN_KERNELS_DEVICE_STREAM_H_
#define LONGSPAN_KERNELS_DEVICE_STREAM_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/device/memory.h"
#include "kernels/device/thread_pool.h"

namespace longspan {

// A copyable handle. A default-constructed event is done. Thread-safe.
class Event {
 public:
  struct State;  // how a back end knows of it: stream_state.h
  Event() = default;
  explicit Event(std::shared_ptr<State> state) : state_(std::move(state)) {}
  bool Done() const;
  // Blocks the calling thread until the event is done, and tells how it ended.
  absl::Status Wait() const;
  // As Wait, but DeadlineExceeded after `timeout`.
  absl::Status WaitFor(absl::Duration timeout) const;
  // Calls `callback` with the outcome, at once if already done, else on the completing thread, or,
  // where a stream of a GPU completes it, on a thread beside that stream. It must not block.
  void OnDone(std::function<void(const absl::Status&)> callback) const;
  const std::shared_ptr<State>& state() const { return state_; }

 private:
  std::shared_ptr<State> state_;
};

struct PromisedEvent;

// The side that completes an Event: transports and storage threads hold one. Completing twice is a
// programming error; a promise destroyed without completion completes with Cancelled. Move-only.
class EventPromise {
 public:
  EventPromise();
  ~EventPromise();
  EventPromise(EventPromise&&) noexcept = default;
  EventPromise& operator=(EventPromise&&) noexcept;
  Event event() const;
  void Complete(absl::Status status = absl::OkStatus());
  // Completes when `event` is done, and as it ends. Where streams of a GPU recorded it and wait for
  // it, the host has no part in that.
  void CompleteWith(const Event& event);

 private:
  std::shared_ptr<PromisedEvent> state_;
  bool completed_ = false;
};

// Done when all of `events` are, with the first failure in their order.
Event WhenAll(const std::vector<Event>& events);

enum class DeviceKind { kCpu, kCuda };

// Work of a low priority gives way to that of other streams, on devices that can.
enum class StreamPriority { kNormal, kLow };

class Device;
class TraceRecorder;
struct TraceLabel;

// Move-only. Launch, Record and WaitFor may be called from any thread; order is the order of the
// calls.
class Stream {
 public:
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;
  // Waits for the work queued so far.
  ~Stream();

  Device& device() const;
  DeviceKind kind() const;
  // CPU streams only: runs `body` on the worker after everything launched before. `name` (static
  // storage) shows in traces and time-out reports. The body may use device().threads().
  void Launch(const char* name, std::function<void()> body);
  // As Launch; a failing body makes the stream fail.
  void LaunchFallible(const char* name, std::function<absl::Status()> body);
  // Any stream: runs `body` on a host thread once everything launched so far is done, in the order
  // of such calls. Work launched later waits for it only through the event returned (on the CPU it
  // waits anyway), which tells how the body ended; on a failed stream it does not run. On a GPU it
  // must not wait for work launched later, nor allocate or free memory of the device.
  Event RunOnHost(const char* name, std::function<absl::Status()> body);
  // Copies between memory of the host and of the device, in either direction or within one. To and
  // from ordinary host memory a GPU's copy may stop the calling thread.
  void CopyBytes(const void* from, void* to, int64_t bytes);
  // An event that is done when everything launched so far is.
  Event Record();
  // Work launched from now on waits for `event`; the calling thread does not. Streams of GPUs wait
  // for each other's events by themselves, for others until the host tells them.
  void WaitFor(const Event& event);
  // Blocks the calling thread until the stream is idle, and what it was to run on the host has run.
  // Returns the first failure, if any.
  absl::Status Synchronize();
  // The name of the work that runs now, "" when idle: for time-out reports.
  std::string Current() const;
  // The stream fails, as if it had waited for an event that failed with `status`.
  void Fail(const absl::Status& status);
  // GPU streams only: what does the same from where the stream itself is out of reach. Callable
  // from any thread, at any time; once the stream is gone it does nothing.
  std::function<void(const absl::Status&)> Failer() const;
  // Seconds that the stream has spent waiting for events so far: what a rank was idle for.
  double waited_seconds() const;
  // The work launched between these is one span of the device's trace: see StreamSpan in trace.h,
  // which calls them. For one thread at a time.
  void BeginSpan(const TraceLabel& label);
  void EndSpan();
  // The innermost open span; empty where there is none.
  TraceLabel span() const;
  // What `owner` keeps with the stream: made by its first call, destroyed when the stream's work is
  // done. Thread-safe.
  void* KeptFor(const void* owner, const std::function<std::shared_ptr<void>()>& make);
  // The device's own handle, for the files that launch its kernels: a cudaStream_t; nullptr on the
  // CPU.
  void* native() const;

 private:
  friend class Device;
  friend class CpuDevice;
  friend class CudaDevice;
  struct State;
  friend struct CpuStreamState;
  friend class CudaStreamCore;
  friend struct CudaStreamState;
  explicit Stream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// One rank's device: its threads, its memory table, its streams. Several ranks of one process each
// have their own. Must outlive its streams and buffers.
class Device {
 public:
  // `threads` >= 1 compute threads.
  static std::unique_ptr<Device> OpenCpu(int threads);
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  // "cpu, 2 threads".
  virtual std::string description() const = 0;
  virtual ThreadPool& threads() = 0;
  virtual MemoryTable& memory() = 0;
  // `name` labels the worker thread (at most 15 characters show).
  Stream CreateStream(const std::string& name, StreamPriority priority = StreamPriority::kNormal) {
    return MakeStream(name, priority);
  }
  // Copies bytes between memory of the host and of the device, whichever each lies in, and returns
  // when that is done. In no order with any stream; on a GPU it gives way to their work.
  virtual absl::Status CopyNow(const void* from, void* to, int64_t bytes) = 0;

  // Whether operators owe equal bits in every run where that costs time and memory. On the CPU they
  // give them anyway.
  bool deterministic() const { return deterministic_; }
  void set_deterministic(bool deterministic) { deterministic_ = deterministic; }

  // What the operators of a back end keep with the device (handles, plans): made by the first call,
  // destroyed with the device. Thread-safe.
  void* OperatorState(const std::function<std::shared_ptr<void>()>& make);

  // Where this rank's timeline is recorded; nullptr: nowhere. Set it while no stream has work.
  const std::shared_ptr<TraceRecorder>& trace() const { return trace_; }
  void set_trace(std::shared_ptr<TraceRecorder> trace) { trace_ = std::move(trace); }
  // Hands the recorder the spans whose ends streams have passed, where a device times them itself.
  // Call it between steps: it may take a while, and may wait for the device's clock.
  virtual void CollectTrace() {}

 private:
  virtual Stream MakeStream(const std::string& name, StreamPriority priority) = 0;

  std::shared_ptr<TraceRecorder> trace_;
  bool deterministic_ = false;
  std::once_flag operator_state_made_;
  std::shared_ptr<void> operator_state_;
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_STREAM_H_
