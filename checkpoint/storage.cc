#include "checkpoint/storage.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/posix_file.h"
#include "checkpoint/write_engine.h"

namespace longspan {
namespace {

bool Aligned(int64_t offset, const void* data) {
  return offset % kStorageAlignment == 0 &&
         reinterpret_cast<uintptr_t>(data) % kStorageAlignment == 0;
}

class Storage : public PosixFiles {
 public:
  Storage(const StorageOptions& options, std::unique_ptr<WriteEngine> ring, std::string refusal)
      : options_(options),
        ring_(std::move(ring)),
        ring_refusal_(std::move(refusal)),
        threads_(StartWriteThreads(options.threads)) {}

  absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> OpenForRead(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> Reuse(const std::string& from,
                                              const std::string& to) override;
  void RegisterMemory(const void* data, int64_t bytes) override {
    if (ring_ != nullptr) ring_->RegisterMemory(data, bytes);
  }
  void WithdrawMemory(const void* data) override {
    if (ring_ != nullptr) ring_->WithdrawMemory(data);
  }

  std::string description() const override {
    const std::lock_guard lock(mutex_);
    std::string text = ring_ != nullptr && direct_refusal_.empty() && options_.direct
                           ? ring_->description()
                           : threads_->description();
    if (!ring_refusal_.empty()) absl::StrAppend(&text, " (", ring_refusal_, ")");
    if (!options_.direct) return absl::StrCat(text, ", through the page cache as configured");
    return direct_refusal_.empty()
               ? absl::StrCat(text, ", O_DIRECT")
               : absl::StrCat(
                     text, ", through the page cache (O_DIRECT is refused: ", direct_refusal_, ")");
  }

  WriteEngine& direct_engine() { return ring_ != nullptr ? *ring_ : *threads_; }
  WriteEngine& threads() { return *threads_; }
  void NoteDirectRefused(int error) {
    const std::lock_guard lock(mutex_);
    direct_refusal_ = std::strerror(error);
  }

 private:
  // Takes over `descriptor`, of a file to be written.
  std::unique_ptr<File> Opened(const std::string& path, int descriptor);

  const StorageOptions options_;
  const std::unique_ptr<WriteEngine> ring_;  // null: not wanted, or refused
  const std::string ring_refusal_;
  const std::unique_ptr<WriteEngine> threads_;
  mutable std::mutex mutex_;
  std::string direct_refusal_;
};

// A file with a second descriptor that goes past the page cache. Bytes of one block are written
// through one of the two alone, so they do not get into each other's way.
class StorageFile : public PosixFile {
 public:
  StorageFile(Storage& storage, std::string path, int descriptor, int direct)
      : PosixFile(std::move(path), descriptor), storage_(storage), direct_(direct) {}
  ~StorageFile() override {
    if (direct_ >= 0) close(direct_);
  }

  void StartWrite(int64_t offset, const void* data, int64_t bytes, WriteDone done) override {
    const int64_t whole = bytes / kStorageAlignment * kStorageAlignment;
    if (direct_ < 0 || refused_ || whole == 0 || !Aligned(offset, data)) {
      Through(offset, data, bytes, std::move(done));
    } else if (whole < bytes) {
      // The end of a file: its last, unfinished block goes through the page cache.
      auto both = std::make_shared<Both>(std::move(done));
      const WriteDone part = [both](const absl::Status& status) { both->Ended(status); };
      Direct(offset, data, whole, part);
      Through(offset + whole, static_cast<const char*>(data) + whole, bytes - whole, part);
    } else {
      Direct(offset, data, bytes, std::move(done));
    }
  }

 private:
  // Two writes that count as one.
  struct Both {
    explicit Both(WriteDone whole_done) : done(std::move(whole_done)) {}
    void Ended(const absl::Status& status) {
      {
        const std::lock_guard lock(mutex);
        outcome.Update(status);
        if (--left > 0) return;
      }
      done(outcome);
    }
    std::mutex mutex;
    int left = 2;
    absl::Status outcome;
    WriteDone done;
  };

  void Direct(int64_t offset, const void* data, int64_t bytes, WriteDone done) {
    storage_.direct_engine().Submit(
        {direct_, offset, static_cast<const char*>(data), bytes,
         [this, offset, data, bytes, done = std::move(done)](int error) mutable {
           // Some file systems take the flag and refuse the write, or want a larger alignment.
           if (error == EINVAL) {
             refused_ = true;
             storage_.NoteDirectRefused(error);
             Through(offset, data, bytes, std::move(done));
           } else {
             done(Outcome(error));
           }
         }});
  }

  absl::Status Outcome(int error) const {
    return error == 0 ? absl::OkStatus() : FileFailure("write", path(), error);
  }
  // Through the page cache.
  void Through(int64_t offset, const void* data, int64_t bytes, WriteDone done) {
    storage_.threads().Submit(
        {descriptor(), offset, static_cast<const char*>(data), bytes,
         [this, done = std::move(done)](int error) { done(Outcome(error)); }});
  }

  Storage& storage_;
  const int direct_;  // -1: none
  std::atomic<bool> refused_ = false;
};

// A file with a second descriptor that reads past the page cache: what is read once need not push
// out what is read often, and the copy from there is saved.
class StorageReadFile : public PosixFile {
 public:
  StorageReadFile(std::string path, int descriptor, int direct)
      : PosixFile(std::move(path), descriptor), direct_(direct) {}
  ~StorageReadFile() override { close(direct_); }

  absl::Status ReadAt(int64_t offset, void* data, int64_t bytes) override {
    const int64_t whole = bytes / kStorageAlignment * kStorageAlignment;
    int64_t done = 0;
    if (Aligned(offset, data)) {
      auto* at = static_cast<char*>(data);
      while (done < whole && !refused_) {
        const ssize_t got =
            pread(direct_, at + done, static_cast<size_t>(whole - done), offset + done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno != EINVAL) return FileFailure("read", path(), errno);
        if (got < 0) refused_ = true;
        // The file's end, or a piece after which the place is not aligned: the rest goes the other
        // way.
        if (got <= 0 || got % kStorageAlignment != 0) break;
        done += got;
      }
    }
    return PosixFile::ReadAt(offset + done, static_cast<char*>(data) + done, bytes - done);
  }

 private:
  const int direct_;
  std::atomic<bool> refused_ = false;
};

absl::StatusOr<std::unique_ptr<File>> Storage::OpenForRead(const std::string& path) {
  const int descriptor = OpenDescriptor(path, O_RDONLY);
  if (descriptor < 0) return FileFailure("open", path, errno);
  const int direct = options_.direct ? OpenDescriptor(path, O_RDONLY | O_DIRECT) : -1;
  if (direct < 0) return std::make_unique<PosixFile>(path, descriptor);
  return std::make_unique<StorageReadFile>(path, descriptor, direct);
}

absl::StatusOr<std::unique_ptr<File>> Storage::Create(const std::string& path) {
  const int descriptor = OpenDescriptor(path, O_CREAT | O_EXCL | O_RDWR);
  if (descriptor < 0) return FileFailure("create", path, errno);
  return Opened(path, descriptor);
}

absl::StatusOr<std::unique_ptr<File>> Storage::Reuse(const std::string& from,
                                                     const std::string& to) {
  absl::StatusOr<int> descriptor = ReuseDescriptor(from, to);
  if (!descriptor.ok()) return descriptor.status();
  return Opened(to, *descriptor);
}

std::unique_ptr<File> Storage::Opened(const std::string& path, int descriptor) {
  int direct = -1;
  if (options_.direct) {
    direct = OpenDescriptor(path, O_WRONLY | O_DIRECT);
    if (direct < 0) NoteDirectRefused(errno);
  }
  return std::make_unique<StorageFile>(*this, path, descriptor, direct);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileSystem>> OpenStorage(const StorageOptions& options) {
  std::unique_ptr<WriteEngine> ring;
  std::string refusal;
  if (options.engine != StorageOptions::Engine::kThreads) {
    absl::StatusOr<std::unique_ptr<WriteEngine>> opened = OpenIoUring(options.depth);
    if (opened.ok()) {
      ring = *std::move(opened);
    } else if (options.engine == StorageOptions::Engine::kIoUring) {
      return opened.status();
    } else {
      refusal = std::string(opened.status().message());
    }
  }
  return std::make_unique<Storage>(options, std::move(ring), std::move(refusal));
}

}  // namespace longspan
