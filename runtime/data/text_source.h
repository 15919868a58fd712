// Documents out of directories, text files and JSON lines, streamed: a document of any length
// passes in parts. Private to this folder.
#ifndef LONGSPAN_RUNTIME_DATA_TEXT_SOURCE_H_
#define LONGSPAN_RUNTIME_DATA_TEXT_SOURCE_H_

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/data/build.h"

namespace longspan {

class DocumentSink {
 public:
  virtual ~DocumentSink() = default;
  // A part of the current document, not empty. Valid during the call.
  virtual absl::Status AppendText(std::string_view part) = 0;
  virtual absl::Status EndDocument() = 0;
  // Bytes of input files that were passed over or read, for progress.
  virtual void InputRead(int64_t bytes) = 0;
};

// Sends every document of the inputs in their order (directories: sorted by name, depth first) to
// the sink. Errors name the file, and the line in JSON lines.
absl::StatusOr<TextReport> ReadDocuments(const TextOptions& options, DocumentSink* sink);

// Bytes of all files that ReadDocuments would open, at most; NotFound for an input that does not
// exist.
absl::StatusOr<int64_t> MeasureInputs(const TextOptions& options);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_TEXT_SOURCE_H_
