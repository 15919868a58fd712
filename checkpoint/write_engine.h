// WriteEngine: carries out writes to open files, several at a time. Two of them: threads that call
// pwrite, which always works, and io_uring.
#ifndef LONGSPAN_CHECKPOINT_WRITE_ENGINE_H_
#define LONGSPAN_CHECKPOINT_WRITE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace longspan {

struct WriteRequest {
  int descriptor = -1;
  int64_t offset = 0;
  const char* data = nullptr;  // untouched until `done`
  int64_t bytes = 0;
  // 0, or the errno of the failure. Called on a thread of the engine; must not block.
  std::function<void(int error)> done;
};

// Thread-safe. Short writes are continued, interrupted ones repeated.
class WriteEngine {
 public:
  // Finishes the writes that were submitted.
  virtual ~WriteEngine() = default;
  virtual void Submit(WriteRequest request) = 0;
  // Hints; see FileSystem::RegisterMemory.
  virtual void RegisterMemory(const void* /*data*/, int64_t /*bytes*/) {}
  virtual void WithdrawMemory(const void* /*data*/) {}
  // "io_uring, 4 writes at a time, registered buffers".
  virtual std::string description() const = 0;
};

std::unique_ptr<WriteEngine> StartWriteThreads(int threads);
// Unavailable, with the reason, where the kernel or the container refuses io_uring. `depth`: writes
// under way at a time.
absl::StatusOr<std::unique_ptr<WriteEngine>> OpenIoUring(int depth);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_WRITE_ENGINE_H_
