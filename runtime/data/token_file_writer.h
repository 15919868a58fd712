// TokenFileWriter: writes a token data set of any size in bounded memory.
//
// Tokens and document ends go to two unnamed temporary files beside the output, which vanish with
// the process. Finish copies them into the HDF5 file slice by slice, so that /tokens lies in one
// piece; syncs; and renames it to its place. Until then an older file of that name stays as it is,
// and an error leaves nothing behind. One thread at a time.
#ifndef LONGSPAN_RUNTIME_DATA_TOKEN_FILE_WRITER_H_
#define LONGSPAN_RUNTIME_DATA_TOKEN_FILE_WRITER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

class TokenFileWriter {
 public:
  // Errors when the directory cannot be written to, or `path` is something else than a file.
  static absl::StatusOr<std::unique_ptr<TokenFileWriter>> Create(const std::string& path);
  virtual ~TokenFileWriter() = default;

  // Before the first Append. Vocabularies up to 65536 are stored as u16, larger ones as u32.
  virtual void SetTokenizer(const std::string& kind, int64_t vocabulary, int32_t end_of_sequence,
                            const std::string& serialized) = 0;
  // Ids of the document being written, in [0, vocabulary).
  virtual absl::Status Append(const std::vector<int32_t>& ids) = 0;
  virtual absl::Status EndDocument() = 0;
  // `progress` gets bytes copied and bytes in all.
  virtual absl::Status Finish(const std::function<void(int64_t, int64_t)>& progress) = 0;

  virtual int64_t documents() const = 0;
  virtual int64_t tokens() const = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_TOKEN_FILE_WRITER_H_
