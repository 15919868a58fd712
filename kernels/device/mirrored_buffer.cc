#include "kernels/device/mirrored_buffer.h"

#include <utility>

#include "kernels/device/check.h"

namespace longspan {

absl::StatusOr<MirroredBuffer> MirroredBuffer::Allocate(Device& device, int64_t bytes,
                                                        const std::string& tag) {
  MirroredBuffer mirrored;
  absl::StatusOr<Buffer> buffer =
      Buffer::AllocateZeroed(device.memory(), bytes, tag, Placement::kDevice);
  if (!buffer.ok()) return buffer.status();
  mirrored.device_ = *std::move(buffer);
  if (device.kind() == DeviceKind::kCpu) return mirrored;
  buffer = Buffer::AllocateZeroed(device.memory(), bytes, tag, Placement::kPinnedHost);
  if (!buffer.ok()) return buffer.status();
  mirrored.host_ = *std::move(buffer);
  mirrored.mirrored_ = true;
  return mirrored;
}

void MirroredBuffer::ToHost(int64_t offset, int64_t bytes, Stream& stream) const {
  if (!mirrored_) return;
  LONGSPAN_CHECK(offset >= 0 && offset + bytes <= device_.bytes(), "outside the buffer");
  stream.CopyBytes(static_cast<const char*>(device_.data()) + offset,
                   static_cast<char*>(host_.data()) + offset, bytes);
}

void MirroredBuffer::ToDevice(int64_t offset, int64_t bytes, Stream& stream) const {
  if (!mirrored_) return;
  LONGSPAN_CHECK(offset >= 0 && offset + bytes <= device_.bytes(), "outside the buffer");
  stream.CopyBytes(static_cast<const char*>(host_.data()) + offset,
                   static_cast<char*>(device_.data()) + offset, bytes);
}

}  // namespace longspan
