#include "watched_files.h"

#include <cctype>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

std::string LastName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// `call` between the watcher's two looks.
template <typename Call>
auto Watched(OperationWatcher& watcher, const FileOperation& operation, Call call)
    -> decltype(call()) {
  const OperationWatcher::Verdict verdict = watcher.Before(operation);
  if (!verdict.status.ok()) {
    watcher.After(operation);
    return verdict.status;
  }
  auto result = call();
  watcher.After(operation);
  return result;
}

}  // namespace

std::string FileOperation::text() const { return absl::StrCat(kind, " ", LastName(path)); }

std::string FileOperation::label() const {
  std::string label = absl::StrCat(kind, " ");
  const std::string name = LastName(path);
  for (size_t i = 0; i < name.size(); ++i) {
    // The 5 of "h5" stays.
    if (std::isdigit(static_cast<unsigned char>(name[i])) == 0 || (i > 0 && name[i - 1] == 'h')) {
      label += name[i];
    } else if (label.back() != '*') {
      label += '*';
    }
  }
  return label;
}

class WatchedFiles::WatchedFile : public File {
 public:
  WatchedFile(std::unique_ptr<File> file, std::string path, OperationWatcher& watcher)
      : file_(std::move(file)), path_(std::move(path)), watcher_(watcher) {}

  absl::Status WriteAt(int64_t offset, const void* data, int64_t bytes) override {
    const FileOperation operation{"write", path_, bytes};
    const OperationWatcher::Verdict verdict = watcher_.Before(operation);
    absl::Status status = verdict.status;
    if (status.ok()) {
      status = file_->WriteAt(offset, data, bytes);
    } else if (verdict.bytes_done > 0) {
      file_->WriteAt(offset, data, verdict.bytes_done).IgnoreError();
    }
    watcher_.After(operation);
    return status;
  }
  void StartWrite(int64_t offset, const void* data, int64_t bytes, WriteDone done) override {
    const FileOperation operation{"write", path_, bytes};
    const OperationWatcher::Verdict verdict = watcher_.Before(operation);
    if (!verdict.status.ok()) {
      if (verdict.bytes_done > 0) file_->WriteAt(offset, data, verdict.bytes_done).IgnoreError();
      watcher_.After(operation);
      done(verdict.status);
      return;
    }
    file_->StartWrite(
        offset, data, bytes,
        [&watcher = watcher_, operation, done = std::move(done)](const absl::Status& status) {
          watcher.After(operation);
          done(status);
        });
  }
  absl::Status ReadAt(int64_t offset, void* data, int64_t bytes) override {
    return Watched(watcher_, {"read", path_, bytes},
                   [&] { return file_->ReadAt(offset, data, bytes); });
  }
  absl::StatusOr<int64_t> Size() override { return file_->Size(); }
  absl::Status Reserve(int64_t bytes) override {
    return Watched(watcher_, {"reserve", path_, bytes}, [&] { return file_->Reserve(bytes); });
  }
  absl::Status Sync() override {
    return Watched(watcher_, {"sync", path_}, [&] { return file_->Sync(); });
  }

 private:
  const std::unique_ptr<File> file_;
  const std::string path_;
  OperationWatcher& watcher_;
};

absl::StatusOr<std::unique_ptr<File>> WatchedFiles::Opened(
    absl::StatusOr<std::unique_ptr<File>> file, const std::string& path) {
  if (!file.ok()) return file;
  return std::make_unique<WatchedFile>(*std::move(file), path, watcher_);
}

absl::StatusOr<std::unique_ptr<File>> WatchedFiles::Create(const std::string& path) {
  return Watched(watcher_, {"create", path}, [&] { return Opened(files_.Create(path), path); });
}
absl::StatusOr<std::unique_ptr<File>> WatchedFiles::OpenForRead(const std::string& path) {
  return Watched(watcher_, {"open", path}, [&] { return Opened(files_.OpenForRead(path), path); });
}
absl::StatusOr<std::unique_ptr<File>> WatchedFiles::OpenForWrite(const std::string& path) {
  return Watched(watcher_, {"open", path}, [&] { return Opened(files_.OpenForWrite(path), path); });
}
absl::Status WatchedFiles::CreateDirectory(const std::string& path) {
  return Watched(watcher_, {"mkdir", path}, [&] { return files_.CreateDirectory(path); });
}
absl::Status WatchedFiles::SyncDirectory(const std::string& path) {
  return Watched(watcher_, {"sync-directory", path}, [&] { return files_.SyncDirectory(path); });
}
absl::Status WatchedFiles::Rename(const std::string& from, const std::string& to) {
  return Watched(watcher_, {"rename", to}, [&] { return files_.Rename(from, to); });
}
absl::StatusOr<std::unique_ptr<File>> WatchedFiles::Reuse(const std::string& from,
                                                          const std::string& to) {
  return Watched(watcher_, {"reuse", to}, [&] { return Opened(files_.Reuse(from, to), to); });
}
absl::Status WatchedFiles::Remove(const std::string& path) {
  return Watched(watcher_, {"remove", path}, [&] { return files_.Remove(path); });
}
absl::StatusOr<std::vector<std::string>> WatchedFiles::List(const std::string& path) {
  return Watched(watcher_, {"list", path}, [&] { return files_.List(path); });
}

}  // namespace longspan
