#include "checkpoint/posix_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

// Calls `call` until it is not interrupted by a signal.
template <typename Call>
auto Retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

absl::StatusOr<std::unique_ptr<File>> Open(const char* operation, const std::string& path,
                                           int flags) {
  const int descriptor = OpenDescriptor(path, flags);
  if (descriptor < 0) return FileFailure(operation, path, errno);
  return std::make_unique<PosixFile>(path, descriptor);
}

}  // namespace

absl::Status FileFailure(const char* operation, const std::string& path, int error) {
  const std::string message = absl::StrCat(operation, " ", path, ": ", std::strerror(error));
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

int OpenDescriptor(const std::string& path, int flags) {
  return Retry([&] { return open(path.c_str(), flags | O_CLOEXEC, 0666); });
}

absl::StatusOr<int> ReuseDescriptor(const std::string& from, const std::string& to) {
  const int descriptor = OpenDescriptor(from, O_RDWR);
  if (descriptor < 0) return FileFailure("open", from, errno);
  const auto refuse = [&](const absl::Status& status) {
    close(descriptor);
    return status;
  };
  struct stat info;
  if (Retry([&] { return fstat(descriptor, &info); }) != 0)
    return refuse(FileFailure("stat", from, errno));
  if (info.st_nlink != 1)
    return refuse(absl::FailedPreconditionError(from + " has another name (a hard link)"));
  // A lease to write is given only to whoever has the file open alone. Should somebody open it in
  // this moment, the kernel tells by a signal, which by default would end the process: one that is
  // ignored, then.
  fcntl(descriptor, F_SETSIG, SIGURG);
  if (fcntl(descriptor, F_SETLEASE, F_WRLCK) != 0) {
    return refuse(absl::FailedPreconditionError(from + " may be in use: " + std::strerror(errno)));
  }
  fcntl(descriptor, F_SETLEASE, F_UNLCK);
  // By link and unlink there would be two names for a moment; not every file system can rename
  // without replacing. Nobody else makes `to`.
  if (access(to.c_str(), F_OK) == 0) return refuse(FileFailure("reuse", to, EEXIST));
  if (rename(from.c_str(), to.c_str()) != 0) {
    return refuse(FileFailure("rename", from + " to " + to, errno));
  }
  return descriptor;
}

PosixFile::~PosixFile() { close(descriptor_); }

absl::Status PosixFile::WriteAt(int64_t offset, const void* data, int64_t bytes) {
  auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written =
        Retry([&] { return pwrite(descriptor_, at, static_cast<size_t>(bytes), offset); });
    if (written < 0) return FileFailure("write", path_, errno);
    if (written == 0) return FileFailure("write", path_, EIO);
    at += written;
    offset += written;
    bytes -= written;
  }
  return absl::OkStatus();
}

absl::Status PosixFile::ReadAt(int64_t offset, void* data, int64_t bytes) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got =
        Retry([&] { return pread(descriptor_, at, static_cast<size_t>(bytes), offset); });
    if (got < 0) return FileFailure("read", path_, errno);
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

int64_t PosixFile::ReadUnit() {
  constexpr int64_t kCached = int64_t{256} << 10;
  struct statfs info;
  if (Retry([&] { return fstatfs(descriptor_, &info); }) != 0) return kLongRead;
  return info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC ? kCached : kLongRead;
}

absl::StatusOr<int64_t> PosixFile::Size() {
  struct stat info;
  if (Retry([&] { return fstat(descriptor_, &info); }) != 0) {
    return FileFailure("stat", path_, errno);
  }
  return static_cast<int64_t>(info.st_size);
}

absl::Status PosixFile::Reserve(int64_t bytes) {
  if (bytes <= 0) return absl::OkStatus();
  if (Retry([&] { return fallocate(descriptor_, 0, 0, bytes); }) == 0) return absl::OkStatus();
  // Some file systems (NFS before 4.2, 9p) cannot reserve; a full disk is then found by the
  // writes.
  if (errno == EOPNOTSUPP || errno == ENOSYS) return absl::OkStatus();
  return FileFailure("reserve space for", path_, errno);
}

absl::Status PosixFile::Sync() {
  if (Retry([&] { return fdatasync(descriptor_); }) != 0) {
    return FileFailure("sync", path_, errno);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<File>> PosixFiles::Create(const std::string& path) {
  return Open("create", path, O_CREAT | O_EXCL | O_RDWR);
}
absl::StatusOr<std::unique_ptr<File>> PosixFiles::OpenForRead(const std::string& path) {
  return Open("open", path, O_RDONLY);
}
absl::StatusOr<std::unique_ptr<File>> PosixFiles::OpenForWrite(const std::string& path) {
  return Open("open for writing", path, O_RDWR);
}

absl::Status PosixFiles::CreateDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0777) != 0) return FileFailure("create directory", path, errno);
  return absl::OkStatus();
}

absl::Status PosixFiles::SyncDirectory(const std::string& path) {
  const int descriptor =
      Retry([&] { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (descriptor < 0) return FileFailure("open directory", path, errno);
  const int result = Retry([&] { return fsync(descriptor); });
  const int error = errno;
  close(descriptor);
  // EINVAL: a file system (some network ones) that has no such operation on directories.
  if (result != 0 && error != EINVAL) return FileFailure("sync directory", path, error);
  return absl::OkStatus();
}

absl::Status PosixFiles::Rename(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0)
    return FileFailure("rename", from + " to " + to, errno);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<File>> PosixFiles::Reuse(const std::string& from,
                                                        const std::string& to) {
  absl::StatusOr<int> descriptor = ReuseDescriptor(from, to);
  if (!descriptor.ok()) return descriptor.status();
  return std::make_unique<PosixFile>(to, *descriptor);
}

bool PosixFiles::CanReuse(const std::string& directory) {
  constexpr int64_t kZfs = 0x2fc12fc1;
  struct statfs info;
  if (Retry([&] { return statfs(directory.c_str(), &info); }) != 0) return false;
  // File systems of one machine, where a lease tells whether anybody has a file open.
  switch (static_cast<int64_t>(info.f_type)) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case kZfs:
      return true;
    default:
      return false;
  }
}

absl::Status PosixFiles::Remove(const std::string& path) {
  if (std::remove(path.c_str()) != 0) return FileFailure("remove", path, errno);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> PosixFiles::List(const std::string& path) {
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return FileFailure("list", path, errno);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(directory)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  const int error = errno;
  closedir(directory);
  if (error != 0) return FileFailure("list", path, error);
  std::sort(names.begin(), names.end());
  return names;
}

bool PosixFiles::Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

}  // namespace longspan
