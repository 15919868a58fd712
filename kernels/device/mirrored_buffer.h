// MirroredBuffer: memory that the host and a device both work on. On a GPU it is device memory with
// a twin in pinned memory, copied on a stream; on the CPU both are one, and nothing is copied.
#ifndef LONGSPAN_KERNELS_DEVICE_MIRRORED_BUFFER_H_
#define LONGSPAN_KERNELS_DEVICE_MIRRORED_BUFFER_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Move-only. Must not outlive the device.
class MirroredBuffer {
 public:
  MirroredBuffer() = default;
  // Zeros on both sides. ResourceExhausted as Buffer::Allocate.
  static absl::StatusOr<MirroredBuffer> Allocate(Device& device, int64_t bytes,
                                                 const std::string& tag);

  int64_t bytes() const { return device_.bytes(); }
  // The same contiguous tensor from byte `offset` on, where the device sees it and where the host
  // does.
  TensorView OnDevice(DType dtype, std::initializer_list<int64_t> shape, int64_t offset = 0) const {
    return device_.Tensor(dtype, shape, offset);
  }
  TensorView OnHost(DType dtype, std::initializer_list<int64_t> shape, int64_t offset = 0) const {
    return (mirrored_ ? host_ : device_).Tensor(dtype, shape, offset);
  }
  // Queues the copy of bytes [offset, offset + bytes).
  void ToHost(int64_t offset, int64_t bytes, Stream& stream) const;
  void ToDevice(int64_t offset, int64_t bytes, Stream& stream) const;

 private:
  Buffer device_;
  Buffer host_;  // only where mirrored
  bool mirrored_ = false;
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_MIRRORED_BUFFER_H_
