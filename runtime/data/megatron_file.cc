#include "runtime/data/megatron_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/data/raw_tokens.h"

namespace longspan {
namespace {

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
constexpr int64_t kHeaderBytes = sizeof(kMagic) + 8 + 1 + 8 + 8;

std::optional<TokenType> TypeOfCode(uint8_t code) {
  switch (code) {
    case 1:
      return TokenType::kU8;
    case 2:
      return TokenType::kI8;
    case 3:
      return TokenType::kI16;
    case 4:
      return TokenType::kI32;
    case 5:
      return TokenType::kI64;
    case 8:
      return TokenType::kU16;
    default:
      return std::nullopt;
  }
}

struct Header {
  TokenType type;
  int64_t sequences;
  int64_t documents;
};

class MegatronFile final : public TokenFile {
 public:
  explicit MegatronFile(std::string path) { raw_.path = std::move(path); }

  absl::Status Initialize(const std::string& index_path);

  const std::string& path() const override { return raw_.path; }
  int64_t documents() const override { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t tokens() const override { return offsets_.back(); }
  int64_t document_begin(int64_t document) const override { return offsets_[document]; }
  int64_t vocabulary() const override { return 0; }
  int32_t end_of_sequence() const override { return -1; }
  std::string tokenizer_kind() const override { return "none"; }
  absl::StatusOr<std::string> tokenizer() const override { return std::string(); }
  absl::Status Read(int64_t begin, int64_t end, int32_t* out) const override {
    if (begin < 0 || begin > end || end > tokens()) {
      return absl::OutOfRangeError(
          absl::StrCat("tokens [", begin, ", ", end, ") of ", raw_.path, ", which has ", tokens()));
    }
    return raw_.Read(begin, end, out);
  }
  int64_t bytes_read() const override { return raw_.bytes_read; }

 private:
  RawTokens raw_;
  std::vector<int64_t> offsets_;  // in tokens, documents + 1
};

absl::StatusOr<FileDescriptor> OpenForReading(const std::string& path, int64_t* size) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status;
  if (!file.valid() || ::fstat(file.get(), &status) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot open ", path, ", half of a Megatron .bin/.idx pair"));
  }
  *size = status.st_size;
  return file;
}

absl::StatusOr<Header> ReadHeader(int file, int64_t size, const std::string& path) {
  char bytes[kHeaderBytes];
  if (size < kHeaderBytes) {
    return absl::DataLossError(absl::StrCat(path, " is truncated: a Megatron index has at least ",
                                            kHeaderBytes, " bytes, this has ", size));
  }
  const absl::Status status = ReadFully(file, bytes, kHeaderBytes, 0, path);
  if (!status.ok()) return status;
  if (std::memcmp(bytes, kMagic, sizeof(kMagic)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " is not an index of Megatron's mmap format: it does not begin with MMIDIDX"));
  }
  uint64_t version, sequences, entries;
  std::memcpy(&version, bytes + 9, 8);
  const uint8_t code = static_cast<uint8_t>(bytes[17]);
  std::memcpy(&sequences, bytes + 18, 8);
  std::memcpy(&entries, bytes + 26, 8);
  if (version != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is of Megatron index version ", version, "; version 1 is supported"));
  }
  const std::optional<TokenType> type = TypeOfCode(code);
  if (!type) {
    return absl::InvalidArgumentError(absl::StrCat(path, " says that tokens are of type ", code,
                                                   ", which is not an integer type"));
  }
  // Divisions, so that a damaged count cannot overflow.
  const uint64_t room = size - kHeaderBytes;
  if (entries < 1 || sequences > room / 12 || entries > (room - sequences * 12) / 8) {
    return absl::DataLossError(
        absl::StrCat(path, " is truncated or damaged: ", sequences, " sequences and ", entries,
                     " document index entries do not fit its ", size, " bytes"));
  }
  return Header{*type, static_cast<int64_t>(sequences), static_cast<int64_t>(entries) - 1};
}

absl::Status MegatronFile::Initialize(const std::string& index_path) {
  int64_t index_size = 0, bin_size = 0;
  absl::StatusOr<FileDescriptor> index = OpenForReading(index_path, &index_size);
  if (!index.ok()) return index.status();
  absl::StatusOr<FileDescriptor> bin = OpenForReading(raw_.path, &bin_size);
  if (!bin.ok()) return bin.status();
  const absl::StatusOr<Header> header = ReadHeader(index->get(), index_size, index_path);
  if (!header.ok()) return header.status();
  raw_.type = header->type;
  raw_.file = *std::move(bin);

  std::vector<int64_t> first_sequences(header->documents + 1);
  const int64_t sizes_at = kHeaderBytes;
  const int64_t pointers_at = sizes_at + header->sequences * 4;
  const int64_t documents_at = pointers_at + header->sequences * 8;
  absl::Status status = ReadFully(index->get(), first_sequences.data(), (header->documents + 1) * 8,
                                  documents_at, index_path);
  if (!status.ok()) return status;
  if (first_sequences.front() != 0 || first_sequences.back() != header->sequences ||
      !std::is_sorted(first_sequences.begin(), first_sequences.end())) {
    return absl::DataLossError(
        absl::StrCat(index_path, " is damaged: its document index does not rise from 0 to its ",
                     header->sequences, " sequences"));
  }

  // Only the documents' beginnings are kept; sizes and pointers pass by in blocks.
  constexpr int64_t kBlock = 64 * 1024;
  const int64_t width = BytesOf(header->type);
  std::vector<int32_t> sizes(std::min(kBlock, header->sequences));
  std::vector<int64_t> pointers(sizes.size());
  offsets_.reserve(first_sequences.size());
  int64_t document = 0, token = 0;
  const auto begin_documents_at = [&](int64_t sequence) {
    for (; document <= header->documents && first_sequences[document] == sequence; ++document) {
      offsets_.push_back(token);
    }
  };
  for (int64_t begin = 0; begin < header->sequences; begin += kBlock) {
    const int64_t count = std::min(kBlock, header->sequences - begin);
    status = ReadFully(index->get(), sizes.data(), count * 4, sizes_at + begin * 4, index_path);
    if (!status.ok()) return status;
    status =
        ReadFully(index->get(), pointers.data(), count * 8, pointers_at + begin * 8, index_path);
    if (!status.ok()) return status;
    for (int64_t i = 0; i < count; ++i) {
      if (sizes[i] < 0 || pointers[i] != token * width) {
        return absl::InvalidArgumentError(
            absl::StrCat("sequence ", begin + i, " of ", index_path, " has ", sizes[i],
                         " tokens at byte ", pointers[i], " of the .bin, but byte ", token * width,
                         " is next: sequences must lie in order and without gaps; the index is "
                         "damaged, or write the pair again with Megatron's merge_datasets.py"));
      }
      begin_documents_at(begin + i);
      token += sizes[i];
    }
  }
  begin_documents_at(header->sequences);
  if (token * width != bin_size) {
    return absl::DataLossError(
        absl::StrCat(raw_.path, bin_size < token * width ? " is truncated: " : " does not match: ",
                     token * width, " bytes expected by ", index_path, ", ", bin_size, " found"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenFile>> OpenMegatronFile(const std::string& prefix) {
  auto file = std::make_unique<MegatronFile>(prefix + ".bin");
  const absl::Status status = file->Initialize(prefix + ".idx");
  if (!status.ok()) return status;
  return file;
}

}  // namespace longspan
