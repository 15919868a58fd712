// Storage: the real file system at the speed of the disk.
//
// StartWrite goes past the page cache (O_DIRECT) where offset, length and memory are multiples of
// kStorageAlignment and the file system allows it, several writes at a time, by io_uring or, where
// that is refused, by threads that call pwrite. What is taken, and why, is decided when it runs.
#ifndef LONGSPAN_CHECKPOINT_STORAGE_H_
#define LONGSPAN_CHECKPOINT_STORAGE_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "checkpoint/file_system.h"

namespace longspan {

inline constexpr int64_t kStorageAlignment = 4096;  // bytes

struct StorageOptions {
  enum class Engine { kAuto, kIoUring, kThreads };
  Engine engine = Engine::kAuto;
  bool direct = true;  // past the page cache where that is allowed
  int depth = 4;       // writes under way with io_uring
  int threads = 2;     // that call pwrite: without io_uring, and for what is not aligned
};

// Unavailable, with the system's reason, if kIoUring is asked for and refused. The files it opens
// are closed before it is destroyed. Thread-safe.
absl::StatusOr<std::unique_ptr<FileSystem>> OpenStorage(const StorageOptions& options = {});

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_STORAGE_H_
