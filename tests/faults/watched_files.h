// WatchedFiles: a file system whose every operation a watcher sees before and after, and may
// refuse, delay or cut short. What the scenarios and the kill tests put between the library and the
// disk.
#ifndef LONGSPAN_TESTS_FAULTS_WATCHED_FILES_H_
#define LONGSPAN_TESTS_FAULTS_WATCHED_FILES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/file_system.h"

namespace longspan {

struct FileOperation {
  const char* kind = "";  // create, open, mkdir, write, read, reserve, sync, sync-directory,
                          // rename, remove, list
  std::string path;       // of a rename: the new name
  int64_t bytes = 0;      // of a write or read

  // "write rank-00001.h5"
  std::string text() const;
  // The same for all ranks, steps and generations: "write rank-*.h5".
  std::string label() const;
};

// Thread-safe.
class OperationWatcher {
 public:
  struct Verdict {
    absl::Status status;     // not OK: the operation fails so and After is told
    int64_t bytes_done = 0;  // of a write that fails: bytes that reach the file nevertheless
  };
  virtual ~OperationWatcher() = default;
  virtual Verdict Before(const FileOperation& operation) = 0;
  // The operation is over; of a write that was started, on the thread that ends it.
  virtual void After(const FileOperation& /*operation*/) {}
};

// `files` and `watcher` outlive it and its files.
class WatchedFiles : public FileSystem {
 public:
  WatchedFiles(FileSystem& files, OperationWatcher& watcher) : files_(files), watcher_(watcher) {}

  absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> OpenForRead(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> OpenForWrite(const std::string& path) override;
  absl::Status CreateDirectory(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::StatusOr<std::unique_ptr<File>> Reuse(const std::string& from,
                                              const std::string& to) override;
  bool CanReuse(const std::string& directory) override { return files_.CanReuse(directory); }
  absl::Status Remove(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  bool Exists(const std::string& path) override { return files_.Exists(path); }
  void RegisterMemory(const void* data, int64_t bytes) override {
    files_.RegisterMemory(data, bytes);
  }
  void WithdrawMemory(const void* data) override { files_.WithdrawMemory(data); }
  std::string description() const override { return files_.description(); }

 private:
  class WatchedFile;
  absl::StatusOr<std::unique_ptr<File>> Opened(absl::StatusOr<std::unique_ptr<File>> file,
                                               const std::string& path);

  FileSystem& files_;
  OperationWatcher& watcher_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_WATCHED_FILES_H_
