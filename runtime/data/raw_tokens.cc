#include "runtime/data/raw_tokens.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are read as they lie");

// Ids that do not fit become -1, which CheckIds refuses.
template <typename T>
void Widen(const std::byte* bytes, int64_t count, int32_t* out) {
  const T* in = reinterpret_cast<const T*>(bytes);
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (sizeof(T) < sizeof(int32_t)) {
      out[i] = in[i];
    } else {
      const bool fits =
          in[i] >= 0 && static_cast<uint64_t>(in[i]) <=
                            static_cast<uint64_t>(std::numeric_limits<int32_t>::max());
      out[i] = fits ? static_cast<int32_t>(in[i]) : -1;
    }
  }
}

void Widen(TokenType type, const std::byte* bytes, int64_t count, int32_t* out) {
  switch (type) {
    case TokenType::kU8:
      return Widen<uint8_t>(bytes, count, out);
    case TokenType::kI8:
      return Widen<int8_t>(bytes, count, out);
    case TokenType::kU16:
      return Widen<uint16_t>(bytes, count, out);
    case TokenType::kI16:
      return Widen<int16_t>(bytes, count, out);
    case TokenType::kU32:
      return Widen<uint32_t>(bytes, count, out);
    case TokenType::kI32:
      return Widen<int32_t>(bytes, count, out);
    case TokenType::kI64:
      return Widen<int64_t>(bytes, count, out);
  }
}

}  // namespace

int64_t BytesOf(TokenType type) {
  switch (type) {
    case TokenType::kU8:
    case TokenType::kI8:
      return 1;
    case TokenType::kU16:
    case TokenType::kI16:
      return 2;
    case TokenType::kU32:
    case TokenType::kI32:
      return 4;
    case TokenType::kI64:
      return 8;
  }
  return 0;
}

absl::Status ReadFully(int file, void* out, int64_t size, int64_t offset, const std::string& path) {
  auto* bytes = static_cast<std::byte*>(out);
  int64_t done = 0;
  while (done < size) {
    const ssize_t got = ::pread(file, bytes + done, size - done, offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return absl::ErrnoToStatus(
          errno, absl::StrCat("cannot read ", size, " bytes at ", offset, " of ", path));
    }
    if (got == 0) {
      return absl::DataLossError(absl::StrCat(path, " is truncated: ", size, " bytes expected at ",
                                              offset, ", ", done, " found"));
    }
    done += got;
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const int32_t* ids, int64_t count, int64_t begin, int64_t vocabulary,
                      const std::string& path) {
  // The largest int32 stands for what did not fit one.
  const int64_t end = vocabulary > 0 ? vocabulary : std::numeric_limits<int32_t>::max();
  const int32_t* bad =
      std::find_if(ids, ids + count, [end](int32_t id) { return id < 0 || id >= end; });
  if (bad == ids + count) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "token ", begin + (bad - ids), " of ", path, " is ",
      *bad < 0 ? std::string("negative or too large") : absl::StrCat(*bad),
      ", outside the vocabulary", vocabulary > 0 ? absl::StrCat(" of ", vocabulary) : "",
      "; the file is damaged, or was made with another tokenizer than it says"));
}

absl::Status RawTokens::Read(int64_t begin, int64_t end, int32_t* out) const {
  constexpr int64_t kBlock = 64 * 1024;
  const int64_t width = BytesOf(type);
  std::vector<std::byte> block(std::min(kBlock, end - begin) * width);
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t count = std::min(kBlock, end - at);
    absl::Status status =
        ReadFully(file.get(), block.data(), count * width, offset + at * width, path);
    if (!status.ok()) return status;
    bytes_read.fetch_add(count * width, std::memory_order_relaxed);
    int32_t* ids = out + (at - begin);
    Widen(type, block.data(), count, ids);
    status = CheckIds(ids, count, at, vocabulary, path);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace longspan
