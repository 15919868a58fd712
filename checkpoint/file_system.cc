#include "checkpoint/file_system.h"

#include <utility>

#include "checkpoint/posix_file.h"

namespace longspan {

void File::StartWrite(int64_t offset, const void* data, int64_t bytes, WriteDone done) {
  done(WriteAt(offset, data, bytes));
}

absl::StatusOr<std::unique_ptr<File>> FileSystem::Reuse(const std::string& from,
                                                        const std::string& /*to*/) {
  return absl::FailedPreconditionError(from + " may be in use");
}

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
