#include "checkpoint/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace longspan {
namespace {

absl::Status Failure(const char* operation, const std::string& path, int error) {
  const std::string message = std::string(operation) + " " + path + ": " + std::strerror(error);
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::UnknownError(message);
  }
}

// Calls `call` until it is not interrupted by a signal.
template <typename Call>
auto Retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

class PosixFile : public File {
 public:
  PosixFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  ~PosixFile() override { close(descriptor_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  absl::Status WriteAt(int64_t offset, const void* data, int64_t bytes) override {
    auto* at = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t written =
          Retry([&] { return pwrite(descriptor_, at, static_cast<size_t>(bytes), offset); });
      if (written < 0) return Failure("write", path_, errno);
      if (written == 0) return Failure("write", path_, EIO);
      at += written;
      offset += written;
      bytes -= written;
    }
    return absl::OkStatus();
  }

  absl::Status ReadAt(int64_t offset, void* data, int64_t bytes) override {
    auto* at = static_cast<char*>(data);
    while (bytes > 0) {
      const ssize_t got =
          Retry([&] { return pread(descriptor_, at, static_cast<size_t>(bytes), offset); });
      if (got < 0) return Failure("read", path_, errno);
      if (got == 0) {
        return absl::DataLossError("read " + path_ + ": the file ends at byte " +
                                   std::to_string(offset) + ", " + std::to_string(bytes) +
                                   " more were expected");
      }
      at += got;
      offset += got;
      bytes -= got;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Size() override {
    struct stat info;
    if (Retry([&] { return fstat(descriptor_, &info); }) != 0) {
      return Failure("stat", path_, errno);
    }
    return static_cast<int64_t>(info.st_size);
  }

  absl::Status Reserve(int64_t bytes) override {
    if (bytes <= 0) return absl::OkStatus();
    if (Retry([&] { return fallocate(descriptor_, 0, 0, bytes); }) == 0) return absl::OkStatus();
    // Some file systems (NFS before 4.2, 9p) cannot reserve; a full disk is then found by the
    // writes.
    if (errno == EOPNOTSUPP || errno == ENOSYS) return absl::OkStatus();
    return Failure("reserve space for", path_, errno);
  }

  absl::Status Sync() override {
    if (Retry([&] { return fdatasync(descriptor_); }) != 0) {
      return Failure("sync", path_, errno);
    }
    return absl::OkStatus();
  }

 private:
  std::string path_;
  int descriptor_;
};

class PosixFiles : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) override {
    return Open("create", path, O_CREAT | O_EXCL | O_RDWR);
  }
  absl::StatusOr<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    return Open("open", path, O_RDONLY);
  }
  absl::StatusOr<std::unique_ptr<File>> OpenForWrite(const std::string& path) override {
    return Open("open for writing", path, O_RDWR);
  }

  absl::Status CreateDirectory(const std::string& path) override {
    if (mkdir(path.c_str(), 0777) != 0) return Failure("create directory", path, errno);
    return absl::OkStatus();
  }

  absl::Status SyncDirectory(const std::string& path) override {
    const int descriptor =
        Retry([&] { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (descriptor < 0) return Failure("open directory", path, errno);
    const int result = Retry([&] { return fsync(descriptor); });
    const int error = errno;
    close(descriptor);
    // EINVAL: a file system (some network ones) that has no such operation on directories.
    if (result != 0 && error != EINVAL) return Failure("sync directory", path, error);
    return absl::OkStatus();
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (rename(from.c_str(), to.c_str()) != 0) return Failure("rename", from + " to " + to, errno);
    return absl::OkStatus();
  }

  absl::Status Remove(const std::string& path) override {
    if (std::remove(path.c_str()) != 0) return Failure("remove", path, errno);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    DIR* directory = opendir(path.c_str());
    if (directory == nullptr) return Failure("list", path, errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(directory)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
      errno = 0;
    }
    const int error = errno;
    closedir(directory);
    if (error != 0) return Failure("list", path, error);
    std::sort(names.begin(), names.end());
    return names;
  }

  bool Exists(const std::string& path) override { return access(path.c_str(), F_OK) == 0; }

 private:
  absl::StatusOr<std::unique_ptr<File>> Open(const char* operation, const std::string& path,
                                             int flags) {
    const int descriptor = Retry([&] { return open(path.c_str(), flags | O_CLOEXEC, 0666); });
    if (descriptor < 0) return Failure(operation, path, errno);
    return std::make_unique<PosixFile>(path, descriptor);
  }
};

}  // namespace

absl::StatusOr<std::string> FileSystem::ReadAll(const std::string& path) {
  absl::StatusOr<std::unique_ptr<File>> file = OpenForRead(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<int64_t> size = (*file)->Size();
  if (!size.ok()) return size.status();
  std::string content(static_cast<size_t>(*size), '\0');
  if (absl::Status status = (*file)->ReadAt(0, content.data(), *size); !status.ok()) return status;
  return content;
}

FileSystem& PosixFileSystem() {
  static PosixFiles files;
  return files;
}

}  // namespace longspan
