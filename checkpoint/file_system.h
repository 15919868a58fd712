// FileSystem: every file operation of a checkpoint goes through this interface, so that tests can
// record the order of syncs, inject errors and enumerate crash states, and so that faster ways to
// write (storage.h) can take its place.
//
// Thread-safety: implementations are thread-safe; one File is used by one thread at a time unless
// it says otherwise. Errors: absl::Status with the operation, the path and the system's reason;
// NotFound, AlreadyExists, PermissionDenied and ResourceExhausted (disk full) keep their own codes.
// EINTR and short transfers are handled inside.
#ifndef LONGSPAN_CHECKPOINT_FILE_SYSTEM_H_
#define LONGSPAN_CHECKPOINT_FILE_SYSTEM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longspan {

// An open file. Closed, unsynced, by the destructor.
class File {
 public:
  virtual ~File() = default;
  virtual absl::Status WriteAt(int64_t offset, const void* data, int64_t bytes) = 0;
  // Told how a write ended, on any thread; must not block.
  using WriteDone = std::function<void(const absl::Status&)>;
  // Starts to write and returns, as a rule before the bytes are written; `data` stays as it is
  // until `done` is called. Several writes of one file, to different places, may be under way; the
  // file is synced and closed after all of them. Here: WriteAt, then `done`.
  virtual void StartWrite(int64_t offset, const void* data, int64_t bytes, WriteDone done);
  // Reads exactly `bytes`; DataLoss if the file ends before. Several threads may read at a time.
  virtual absl::Status ReadAt(int64_t offset, void* data, int64_t bytes) = 0;
  // Bytes that one read had best be of: much where a disk is behind it; where memory is, no more
  // than a core's cache keeps until they are used.
  virtual int64_t ReadUnit() { return kLongRead; }
  static constexpr int64_t kLongRead = int64_t{8} << 20;
  virtual absl::StatusOr<int64_t> Size() = 0;
  // Reserves space so that a full disk is found before anything is written.
  virtual absl::Status Reserve(int64_t bytes) = 0;
  // fdatasync. After a failure the file's contents are unknown: never retry.
  virtual absl::Status Sync() = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // O_CREAT | O_EXCL | O_RDWR.
  virtual absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<File>> OpenForRead(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<File>> OpenForWrite(const std::string& path) = 0;
  virtual absl::Status CreateDirectory(const std::string& path) = 0;
  // fsync of the directory itself: makes creations, renames and removals in it durable.
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  // A file or a directory.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // Renames a file that nobody needs any more, and opens it for writing, its bytes as they were and
  // its space allocated. FailedPrecondition, with nothing done, where somebody else may have it
  // open, or where it has another name (a hard link); AlreadyExists if `to` is there. Here: never.
  virtual absl::StatusOr<std::unique_ptr<File>> Reuse(const std::string& from,
                                                      const std::string& to);
  // Whether that can be had below `directory`: not where other machines may have a file open.
  virtual bool CanReuse(const std::string& /*directory*/) { return false; }
  // A file or an empty directory.
  virtual absl::Status Remove(const std::string& path) = 0;
  // Names, sorted, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  virtual bool Exists(const std::string& path) = 0;

  // Memory that later writes take their bytes from, so that it can be made known to the kernel
  // once. A hint: writes from anywhere else work as well. The memory outlives the file system or is
  // withdrawn, with no write from it under way.
  virtual void RegisterMemory(const void* /*data*/, int64_t /*bytes*/) {}
  virtual void WithdrawMemory(const void* /*data*/) {}
  // How StartWrite gets bytes to the disk, and why in that way, in words.
  virtual std::string description() const { return "one pwrite at a time"; }

  absl::StatusOr<std::string> ReadAll(const std::string& path);
};

// The real one.
FileSystem& PosixFileSystem();

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_FILE_SYSTEM_H_
