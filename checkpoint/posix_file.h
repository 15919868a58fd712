// PosixFile and PosixFiles: the real file system, which the storage engines add their own ways of
// writing to.
#ifndef LONGSPAN_CHECKPOINT_POSIX_FILE_H_
#define LONGSPAN_CHECKPOINT_POSIX_FILE_H_

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/file_system.h"

namespace longspan {

// "OPERATION PATH: the system's reason", under the code that callers tell apart.
absl::Status FileFailure(const char* operation, const std::string& path, int error);

// As open(2), with O_CLOEXEC, not interrupted by signals; -1 and errno on failure.
int OpenDescriptor(const std::string& path, int flags);

// The descriptor that FileSystem::Reuse asks for.
absl::StatusOr<int> ReuseDescriptor(const std::string& from, const std::string& to);

// Owns its descriptor.
class PosixFile : public File {
 public:
  PosixFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  ~PosixFile() override;
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  absl::Status WriteAt(int64_t offset, const void* data, int64_t bytes) override;
  absl::Status ReadAt(int64_t offset, void* data, int64_t bytes) override;
  int64_t ReadUnit() override;
  absl::StatusOr<int64_t> Size() override;
  absl::Status Reserve(int64_t bytes) override;
  absl::Status Sync() override;

  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_; }

 private:
  const std::string path_;
  const int descriptor_;
};

class PosixFiles : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> OpenForRead(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> OpenForWrite(const std::string& path) override;
  absl::Status CreateDirectory(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::StatusOr<std::unique_ptr<File>> Reuse(const std::string& from,
                                              const std::string& to) override;
  bool CanReuse(const std::string& directory) override;
  absl::Status Remove(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  bool Exists(const std::string& path) override;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_POSIX_FILE_H_
