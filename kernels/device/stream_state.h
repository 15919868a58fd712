// Stream::State: what a device implements of a stream. Event::State: the ways in which an event is
// known. Private to kernels/device.
#ifndef LONGSPAN_KERNELS_DEVICE_STREAM_STATE_H_
#define LONGSPAN_KERNELS_DEVICE_STREAM_STATE_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/check.h"
#include "kernels/device/stream.h"
#include "kernels/device/trace.h"

namespace longspan {

// Thread-safe.
struct Event::State {
  virtual ~State() = default;
  virtual bool Done() = 0;
  virtual absl::Status Wait() = 0;
  // No value: it was not done within `timeout`.
  virtual std::optional<absl::Status> WaitFor(absl::Duration timeout) = 0;
  virtual void OnDone(std::function<void(const absl::Status&)> callback) = 0;
};

// Decided by the host: by an outcome, or by another event, the one it is done with from then on.
struct PromisedEvent : Event::State {
  bool Done() override;
  absl::Status Wait() override;
  std::optional<absl::Status> WaitFor(absl::Duration timeout) override;
  void OnDone(std::function<void(const absl::Status&)> callback) override;

  void Decide(absl::Status status);
  void Decide(const Event& other);
  // Calls `decided` with the other event, or with nullptr for an outcome: at once if that is known,
  // else on the deciding thread. It must not block.
  void WhenDecided(std::function<void(const Event* other)> decided);
  // Whether the host has decided; then `other` is the other event, or a done one.
  bool DecidedBy(Event* other);

 private:
  bool decided() const { return outcome_.has_value() || other_.has_value(); }
  void Tell();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<absl::Status> outcome_;
  std::optional<Event> other_;  // one of the two
  std::vector<std::function<void(const Event* other)>> callbacks_;
};

// Of WhenAll.
struct AllEvents : Event::State {
  explicit AllEvents(std::vector<Event> all) : events(std::move(all)) {}
  bool Done() override;
  absl::Status Wait() override;
  std::optional<absl::Status> WaitFor(absl::Duration timeout) override;
  void OnDone(std::function<void(const absl::Status&)> callback) override;

  const std::vector<Event> events;
};

struct Stream::State {
  // A worker thread with a queue: a CPU stream, and what a CUDA stream runs on the host.
  static std::unique_ptr<State> MakeWorker(Device& device, const std::string& name);

  explicit State(Device& owner) : device(owner) {}
  // Finishes the work queued so far.
  virtual ~State() = default;
  virtual void Launch(const char* name, std::function<absl::Status()> body) = 0;
  virtual Event RunOnHost(const char* name, std::function<absl::Status()> body) = 0;
  virtual void CopyBytes(const void* from, void* to, int64_t bytes) = 0;
  virtual Event Record() = 0;
  virtual void WaitFor(const Event& event) = 0;
  virtual absl::Status Synchronize() = 0;
  virtual std::string Current() const = 0;
  virtual void Fail(const absl::Status& status) {
    Launch("fail", [status] { return status; });
  }
  virtual std::function<void(const absl::Status&)> Failer() const {
    LONGSPAN_CHECK(false, "only a GPU's stream has a Failer");
    return nullptr;
  }
  virtual double waited_seconds() const { return 0; }
  // The device's own handle (cudaStream_t), nullptr on the CPU.
  virtual void* native() const { return nullptr; }
  // Spans of a trace, in the order of the work around them. `label` is complete.
  virtual void BeginSpan(const TraceLabel&) {}
  virtual void EndSpan() {}

  Device& device;
  std::mutex kept_mutex;
  std::map<const void*, std::shared_ptr<void>> kept;  // by owner
  std::vector<TraceLabel> spans;                      // open, as the launching thread sees it
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_STREAM_STATE_H_
