// Stream::State: what a device implements of a stream. Private to kernels/device.
#ifndef LONGSPAN_KERNELS_DEVICE_STREAM_STATE_H_
#define LONGSPAN_KERNELS_DEVICE_STREAM_STATE_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/check.h"
#include "kernels/device/stream.h"
#include "kernels/device/trace.h"

namespace longspan {

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
