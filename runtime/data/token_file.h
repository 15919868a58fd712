// TokenFile: one data set of tokenised documents, read in place: Longspan's HDF5 format or a
// Megatron-LM .bin/.idx pair. Thread-safe: reads may come from several threads. Token reads bypass
// HDF5 (pread at the data set's offset).
#ifndef LONGSPAN_RUNTIME_DATA_TOKEN_FILE_H_
#define LONGSPAN_RUNTIME_DATA_TOKEN_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

class TokenFile {
 public:
  virtual ~TokenFile() = default;
  // `path`: an .h5 file, or a Megatron pair by its .bin, its .idx or their common prefix. Errors
  // name the path, what is wrong (missing, not a token data set, truncated: bytes expected and
  // found) and how to make one.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(const std::string& path);

  virtual const std::string& path() const = 0;
  virtual int64_t documents() const = 0;
  virtual int64_t tokens() const = 0;
  // First token of a document; document_begin(documents()) == tokens().
  virtual int64_t document_begin(int64_t document) const = 0;
  // 0 where the file does not say (Megatron).
  virtual int64_t vocabulary() const = 0;
  virtual int32_t end_of_sequence() const = 0;                // -1 where unknown
  virtual std::string tokenizer_kind() const = 0;             // "byte", "sentencepiece", "none"
  virtual absl::StatusOr<std::string> tokenizer() const = 0;  // serialized; "" where there is none
  // Tokens [begin, end) of the file, widened.
  virtual absl::Status Read(int64_t begin, int64_t end, int32_t* out) const = 0;
  // Bytes of tokens read so far through this object.
  virtual int64_t bytes_read() const = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_TOKEN_FILE_H_
