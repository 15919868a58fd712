// FileDescriptor: owns one open file; closes it at the end of its life. Move-only; as thread-safe
// as the system calls.
#ifndef LONGSPAN_RUNTIME_DATA_FILE_DESCRIPTOR_H_
#define LONGSPAN_RUNTIME_DATA_FILE_DESCRIPTOR_H_

#include <unistd.h>

#include <utility>

namespace longspan {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FileDescriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int get() const { return descriptor_; }
  bool valid() const { return descriptor_ >= 0; }

 private:
  int descriptor_ = -1;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_FILE_DESCRIPTOR_H_
