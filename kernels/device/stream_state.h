// Stream::State: what a device implements of a stream. Private to kernels/device.
#ifndef LONGSPAN_KERNELS_DEVICE_STREAM_STATE_H_
#define LONGSPAN_KERNELS_DEVICE_STREAM_STATE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "kernels/device/stream.h"

namespace longspan {

struct Stream::State {
  explicit State(Device& owner) : device(owner) {}
  // Finishes the work queued so far.
  virtual ~State() = default;
  virtual void Launch(const char* name, std::function<absl::Status()> body) = 0;
  virtual Event Record() = 0;
  virtual void WaitFor(const Event& event) = 0;
  virtual absl::Status Synchronize() = 0;
  virtual std::string Current() const = 0;
  virtual double waited_seconds() const { return 0; }
  // The device's own handle (cudaStream_t), nullptr on the CPU.
  virtual void* native() const { return nullptr; }

  Device& device;
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_STREAM_STATE_H_
