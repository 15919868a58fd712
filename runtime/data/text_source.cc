#include "runtime/data/text_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/data/file_descriptor.h"

namespace longspan {
namespace {

constexpr int64_t kReadBytes = 256 * 1024;
constexpr int64_t kBinaryProbeBytes = 8 * 1024;
constexpr int64_t kMaximumLineBytes = int64_t{256} << 20;

bool HoldsJsonLines(const std::string& path) {
  return absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".ndjson");
}

// Sends the files of inputs to `visit`, in order. `explicit_input`: it was named, not found in a
// directory. A false
// `*visit` stops the walk.
class InputWalk {
 public:
  using Visit = std::function<absl::StatusOr<bool>(const std::string& path, int64_t size,
                                                   bool explicit_input)>;
  InputWalk(const TextOptions& options, Visit visit, std::function<void(const std::string&)> failed)
      : options_(options), visit_(std::move(visit)), directory_failed_(std::move(failed)) {}

  absl::Status Run() {
    for (const std::string& input : options_.inputs) {
      struct stat status;
      if (::stat(input.c_str(), &status) != 0) {
        return absl::ErrnoToStatus(errno, absl::StrCat("cannot read input ", input));
      }
      absl::StatusOr<bool> more = true;
      if (S_ISDIR(status.st_mode)) {
        if (::access(input.c_str(), R_OK | X_OK) != 0) {
          return absl::ErrnoToStatus(errno, absl::StrCat("cannot read input ", input));
        }
        more = WalkDirectory(input);
      } else if (S_ISREG(status.st_mode)) {
        more = visit_(input, status.st_size, /*explicit_input=*/true);
      } else {
        return absl::InvalidArgumentError(
            absl::StrCat("input ", input, " is neither a file nor a directory"));
      }
      if (!more.ok()) return more.status();
      if (!*more) break;
    }
    return absl::OkStatus();
  }

 private:
  bool Wanted(const std::string& name) const {
    if (options_.extensions.empty()) return true;
    return std::any_of(options_.extensions.begin(), options_.extensions.end(),
                       [&](const std::string& e) { return absl::EndsWith(name, e); });
  }

  // Only the listings of the directories on the way down are held.
  absl::StatusOr<bool> WalkDirectory(const std::string& path) {
    namespace fs = std::filesystem;
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      std::string name = it->path().filename().string();
      if (name[0] != '.') names.push_back(std::move(name));
    }
    if (error) directory_failed_(path);
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      const std::string child = absl::EndsWith(path, "/") ? path + name : path + "/" + name;
      struct stat link, status;
      if (::lstat(child.c_str(), &link) != 0 || ::stat(child.c_str(), &status) != 0) continue;
      absl::StatusOr<bool> more = true;
      if (S_ISDIR(link.st_mode)) {
        more = WalkDirectory(child);
      } else if (S_ISREG(status.st_mode) && Wanted(name)) {
        more = visit_(child, status.st_size, /*explicit_input=*/false);
      }
      if (!more.ok() || !*more) return more;
    }
    return true;
  }

  const TextOptions& options_;
  Visit visit_;
  std::function<void(const std::string&)> directory_failed_;
};

class DocumentReader {
 public:
  DocumentReader(const TextOptions& options, DocumentSink* sink)
      : options_(options), sink_(sink), buffer_(kReadBytes, '\0') {}

  absl::StatusOr<TextReport> Run() {
    InputWalk walk(
        options_,
        [this](const std::string& path, int64_t size, bool explicit_input) {
          return ReadFile(path, size, explicit_input);
        },
        [this](const std::string& path) { CountUnreadable(path); });
    const absl::Status status = walk.Run();
    if (!status.ok()) return status;
    return report_;
  }

 private:
  void CountUnreadable(const std::string& path) {
    if (report_.unreadable++ == 0) report_.first_unreadable = path;
  }

  bool full() const {
    return (options_.maximum_documents > 0 && report_.documents >= options_.maximum_documents) ||
           (options_.maximum_bytes > 0 && report_.bytes >= options_.maximum_bytes);
  }

  absl::Status Text(std::string_view part) {
    if (part.empty()) return absl::OkStatus();
    document_bytes_ += static_cast<int64_t>(part.size());
    return sink_->AppendText(part);
  }

  absl::Status EndDocument() {
    report_.bytes += document_bytes_;
    ++report_.documents;
    document_bytes_ = 0;
    return sink_->EndDocument();
  }

  // The next part of `file`; empty at its end.
  absl::StatusOr<std::string_view> Next(int file, const std::string& path) {
    ssize_t got;
    do {
      got = ::read(file, buffer_.data(), buffer_.size());
    } while (got < 0 && errno == EINTR);
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
    sink_->InputRead(got);
    return std::string_view(buffer_.data(), got);
  }

  // False: enough was read.
  absl::StatusOr<bool> ReadFile(const std::string& path, int64_t size, bool explicit_input) {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid()) {
      if (explicit_input) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
      CountUnreadable(path);
      return true;
    }
    ++report_.files;
    const int64_t documents_before = report_.documents;
    absl::Status status;
    if (HoldsJsonLines(path)) {
      status = ReadJsonLines(file.get(), path);
    } else {
      absl::StatusOr<std::string_view> part = Next(file.get(), path);
      if (!part.ok()) return part.status();
      if (part->substr(0, kBinaryProbeBytes).find('\0') != std::string_view::npos) {
        ++report_.skipped_binary;
        sink_->InputRead(size - static_cast<int64_t>(part->size()));
        return true;
      }
      status = ReadText(file.get(), path, *part);
      if (report_.documents == documents_before) ++report_.skipped_empty;
    }
    if (!status.ok()) return status;
    return !full();
  }

  absl::Status ReadText(int file, const std::string& path, std::string_view part) {
    int64_t newlines = 0;  // seen, and not yet known to be inside a document
    while (!part.empty()) {
      const absl::Status status =
          options_.split == TextOptions::Split::kFile ? Text(part) : SplitText(part, &newlines);
      if (!status.ok()) return status;
      if (full()) return absl::OkStatus();
      const absl::StatusOr<std::string_view> next = Next(file, path);
      if (!next.ok()) return next.status();
      part = *next;
    }
    return document_bytes_ > 0 ? EndDocument() : absl::OkStatus();
  }

  absl::Status SplitText(std::string_view part, int64_t* newlines) {
    const int64_t ends_document = options_.split == TextOptions::Split::kLine ? 1 : 2;
    while (!part.empty()) {
      if (part.front() == '\n') {
        part.remove_prefix(1);
        if (++*newlines == ends_document && document_bytes_ > 0) {
          const absl::Status status = EndDocument();
          if (!status.ok() || full()) return status;
        }
        continue;
      }
      // Newlines at the beginning of a document belong to the gap before it.
      absl::Status status;
      if (*newlines > 0 && document_bytes_ > 0) status = Text("\n");
      *newlines = 0;
      const size_t size = std::min(part.find('\n'), part.size());
      if (status.ok()) status = Text(part.substr(0, size));
      if (!status.ok()) return status;
      part.remove_prefix(size);
    }
    return absl::OkStatus();
  }

  absl::Status ReadJsonLines(int file, const std::string& path) {
    std::string line;
    int64_t number = 1;
    while (true) {
      const absl::StatusOr<std::string_view> next = Next(file, path);
      if (!next.ok()) return next.status();
      std::string_view part = *next;
      if (part.empty()) return line.empty() ? absl::OkStatus() : JsonDocument(line, path, number);
      while (!part.empty()) {
        const size_t size = std::min(part.find('\n'), part.size());
        if (static_cast<int64_t>(line.size() + size) > kMaximumLineBytes) {
          return absl::InvalidArgumentError(
              absl::StrCat(path, ":", number, ": the line is longer than ", kMaximumLineBytes >> 20,
                           " MiB; put such a document in a text file"));
        }
        line.append(part.substr(0, size));
        part.remove_prefix(size);
        if (part.empty()) break;
        part.remove_prefix(1);
        const absl::Status status = JsonDocument(line, path, number++);
        if (!status.ok() || full()) return status;
        line.clear();
        // One huge line must not be paid for in memory until the end of the file.
        if (line.capacity() > static_cast<size_t>(16 * kReadBytes)) line.shrink_to_fit();
      }
    }
  }

  absl::Status JsonDocument(const std::string& line, const std::string& path, int64_t number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) return absl::OkStatus();
    const auto error = [&](const std::string& what) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", what));
    };
    try {
      const nlohmann::json object = nlohmann::json::parse(line);
      const auto field = object.is_object() ? object.find(options_.field) : object.end();
      if (!object.is_object()) return error("the line is not a JSON object");
      if (field == object.end()) {
        return error(absl::StrCat("no field \"", options_.field, "\"; --field names another"));
      }
      if (!field->is_string()) {
        return error(absl::StrCat("field \"", options_.field, "\" is not a string"));
      }
      const auto& text = field->get_ref<const std::string&>();
      if (text.empty()) {
        ++report_.skipped_empty;
        return absl::OkStatus();
      }
      const absl::Status status = Text(text);
      return status.ok() ? EndDocument() : status;
    } catch (const nlohmann::json::exception& e) {
      const std::string_view what = e.what();  // "[json.exception.parse_error.101] parse error ..."
      const size_t start = what.find("] ");
      return error(absl::StrCat(
          "not valid JSON: ",
          std::string(start == std::string_view::npos ? what : what.substr(start + 2))));
    }
  }

  const TextOptions& options_;
  DocumentSink* sink_;
  std::string buffer_;
  TextReport report_;
  int64_t document_bytes_ = 0;
};

}  // namespace

absl::StatusOr<TextReport> ReadDocuments(const TextOptions& options, DocumentSink* sink) {
  return DocumentReader(options, sink).Run();
}

absl::StatusOr<int64_t> MeasureInputs(const TextOptions& options) {
  int64_t bytes = 0;
  InputWalk walk(
      options,
      [&](const std::string&, int64_t size, bool) -> absl::StatusOr<bool> {
        bytes += size;
        return true;
      },
      [](const std::string&) {});
  const absl::Status status = walk.Run();
  if (!status.ok()) return status;
  return bytes;
}

}  // namespace longspan
