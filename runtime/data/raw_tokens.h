// RawTokens: token ids that lie one after another in a file, little-endian, read with pread.
// Thread-safe. Private to this folder.
#ifndef LONGSPAN_RUNTIME_DATA_RAW_TOKENS_H_
#define LONGSPAN_RUNTIME_DATA_RAW_TOKENS_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "runtime/data/file_descriptor.h"

namespace longspan {

enum class TokenType { kU8, kI8, kU16, kI16, kU32, kI32, kI64 };
int64_t BytesOf(TokenType type);

struct RawTokens {
  std::string path;  // for messages
  FileDescriptor file;
  int64_t offset = 0;  // of token 0, in bytes
  TokenType type = TokenType::kU16;
  int64_t vocabulary = 0;  // ids must be below it; 0: any
  mutable std::atomic<int64_t> bytes_read{0};

  // Tokens [begin, end), widened. DataLoss where the file ends early or an id is negative or
  // outside the vocabulary.
  absl::Status Read(int64_t begin, int64_t end, int32_t* out) const;
};

// InvalidArgument unless all of out[0, count) are ids of a vocabulary (0: any that is not
// negative). `begin` is the position of out[0] in the file.
absl::Status CheckIds(const int32_t* ids, int64_t count, int64_t begin, int64_t vocabulary,
                      const std::string& path);

// Reads exactly `size` bytes at `offset`. DataLoss at the end of the file.
absl::Status ReadFully(int file, void* out, int64_t size, int64_t offset, const std::string& path);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_RAW_TOKENS_H_
