#include "runtime/data/token_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/data/hdf5_handle.h"
#include "runtime/data/megatron_file.h"
#include "runtime/data/raw_tokens.h"
#include "runtime/data/token_format.h"

namespace longspan {
namespace {

constexpr char kHowToMake[] =
    "; `longspan data build INPUT... --out FILE.h5` makes token data sets";

class Hdf5TokenFile final : public TokenFile {
 public:
  explicit Hdf5TokenFile(std::string path) { raw_.path = std::move(path); }
  ~Hdf5TokenFile() override {
    const Hdf5Session session;
    chunked_ = Hdf5Handle();
    chunked_file_ = Hdf5Handle();
  }

  absl::Status Initialize();

  const std::string& path() const override { return raw_.path; }
  int64_t documents() const override { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t tokens() const override { return offsets_.back(); }
  int64_t document_begin(int64_t document) const override { return offsets_[document]; }
  int64_t vocabulary() const override { return raw_.vocabulary; }
  int32_t end_of_sequence() const override { return end_of_sequence_; }
  std::string tokenizer_kind() const override { return tokenizer_kind_; }
  absl::StatusOr<std::string> tokenizer() const override { return tokenizer_; }
  int64_t bytes_read() const override { return raw_.bytes_read; }

  absl::Status Read(int64_t begin, int64_t end, int32_t* out) const override {
    if (begin < 0 || begin > end || end > tokens()) {
      return absl::OutOfRangeError(
          absl::StrCat("tokens [", begin, ", ", end, ") of ", raw_.path, ", which has ", tokens()));
    }
    return chunked_.ok() ? ReadChunked(begin, end, out) : raw_.Read(begin, end, out);
  }

 private:
  absl::Status ReadAttributes(hid_t file, const Hdf5Session& session);
  absl::Status ReadOffsets(hid_t file, const Hdf5Session& session);
  absl::Status ReadTokenizer(hid_t file, const Hdf5Session& session);
  absl::Status LocateTokens(Hdf5Handle file, int64_t file_size, const Hdf5Session& session);
  absl::Status ReadChunked(int64_t begin, int64_t end, int32_t* out) const;

  absl::Status NotATokenFile(const std::string& reason) const {
    return absl::InvalidArgumentError(
        absl::StrCat(raw_.path, " is not a token data set: ", reason, kHowToMake));
  }
  absl::Status Damaged(const std::string& reason) const {
    return absl::DataLossError(absl::StrCat(raw_.path, " is damaged: ", reason));
  }

  RawTokens raw_;
  std::vector<int64_t> offsets_;
  int32_t end_of_sequence_ = -1;
  std::string tokenizer_kind_ = "none";
  std::string tokenizer_;
  // Set for tokens in another layout than ours: chunked, compressed, big-endian. Reads then go
  // through HDF5.
  Hdf5Handle chunked_file_, chunked_;
};

// The size that the superblock says the file has; 0 where it cannot be told.
int64_t StoredEnd(int file) {
  unsigned char block[64];
  if (::pread(file, block, sizeof(block), 0) != static_cast<ssize_t>(sizeof(block))) return 0;
  const int version = block[8];
  int64_t end = 0;
  if (version <= 1 && block[13] == 8) {
    std::memcpy(&end, block + (version == 0 ? 40 : 44), 8);
  } else if ((version == 2 || version == 3) && block[9] == 8) {
    std::memcpy(&end, block + 28, 8);
  }
  return end;
}

bool ReadIntegerAttribute(hid_t file, const char* name, int64_t* value) {
  const Hdf5Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose);
  if (!attribute.ok()) return false;
  const Hdf5Handle space(H5Aget_space(attribute.get()), H5Sclose);
  return H5Sget_simple_extent_npoints(space.get()) == 1 &&
         H5Aread(attribute.get(), H5T_NATIVE_INT64, value) >= 0;
}

// Fixed-length strings, as ours, and variable-length ones, as h5py writes them.
bool ReadStringAttribute(hid_t file, const char* name, std::string* value) {
  const Hdf5Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose);
  if (!attribute.ok()) return false;
  const Hdf5Handle type(H5Aget_type(attribute.get()), H5Tclose);
  const Hdf5Handle space(H5Aget_space(attribute.get()), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_STRING || H5Sget_simple_extent_npoints(space.get()) != 1) {
    return false;
  }
  if (H5Tis_variable_str(type.get()) > 0) {
    char* text = nullptr;
    if (H5Aread(attribute.get(), type.get(), &text) < 0 || text == nullptr) return false;
    *value = text;
    H5free_memory(text);
    return true;
  }
  std::string text(H5Tget_size(type.get()), '\0');
  if (H5Aread(attribute.get(), type.get(), text.data()) < 0) return false;
  *value = text.substr(0, text.find('\0'));
  return true;
}

int64_t Extent1d(hid_t dataset) {
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  if (H5Sget_simple_extent_ndims(space.get()) != 1) return -1;
  hsize_t extent = 0;
  H5Sget_simple_extent_dims(space.get(), &extent, nullptr);
  return static_cast<int64_t>(extent);
}

absl::Status Hdf5TokenFile::ReadAttributes(hid_t file, const Hdf5Session& session) {
  std::string format;
  if (!ReadStringAttribute(file, "format", &format) || format != kTokenFormat) {
    return NotATokenFile(absl::StrCat("its attribute \"format\" is not \"", kTokenFormat, "\""));
  }
  int64_t version = 0;
  if (!ReadIntegerAttribute(file, "version", &version)) {
    return NotATokenFile("it has no integer attribute \"version\"");
  }
  if (version < 1 || version > kTokenFormatVersion) {
    return absl::UnimplementedError(absl::StrCat(
        raw_.path, " is of token data set version ", version, ", this program reads up to version ",
        kTokenFormatVersion, ": use a newer longspan, or build the data set again"));
  }
  int64_t vocabulary = 0, eos = -1;
  if (H5Aexists(file, "vocab_size") > 0 && !ReadIntegerAttribute(file, "vocab_size", &vocabulary)) {
    return Damaged(absl::StrCat("attribute \"vocab_size\": ", session.Error()));
  }
  if (H5Aexists(file, "eos") > 0 && !ReadIntegerAttribute(file, "eos", &eos)) {
    return Damaged(absl::StrCat("attribute \"eos\": ", session.Error()));
  }
  if (vocabulary < 0 || vocabulary > int64_t{1} << 31 || eos < -1 ||
      (vocabulary > 0 && eos >= vocabulary)) {
    return Damaged(absl::StrCat("vocab_size ", vocabulary, " and eos ", eos, " cannot be"));
  }
  raw_.vocabulary = vocabulary;
  end_of_sequence_ = static_cast<int32_t>(eos);
  if (H5Aexists(file, "tokenizer_kind") > 0 &&
      !ReadStringAttribute(file, "tokenizer_kind", &tokenizer_kind_)) {
    return Damaged("attribute \"tokenizer_kind\" is not a string");
  }
  return absl::OkStatus();
}

absl::Status Hdf5TokenFile::ReadOffsets(hid_t file, const Hdf5Session& session) {
  const Hdf5Handle dataset(H5Dopen2(file, "/offsets", H5P_DEFAULT), H5Dclose);
  if (!dataset.ok()) return NotATokenFile("it has no data set /offsets");
  const int64_t count = Extent1d(dataset.get());
  if (count < 1) return Damaged("/offsets is not a list of documents + 1 positions");
  offsets_.resize(count);
  if (H5Dread(dataset.get(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, offsets_.data()) <
      0) {
    return Damaged(absl::StrCat("/offsets cannot be read: ", session.Error()));
  }
  if (offsets_[0] != 0 || !std::is_sorted(offsets_.begin(), offsets_.end())) {
    return Damaged("/offsets does not rise from 0");
  }
  return absl::OkStatus();
}

absl::Status Hdf5TokenFile::ReadTokenizer(hid_t file, const Hdf5Session& session) {
  if (H5Lexists(file, "tokenizer", H5P_DEFAULT) <= 0) return absl::OkStatus();
  const Hdf5Handle dataset(H5Dopen2(file, "/tokenizer", H5P_DEFAULT), H5Dclose);
  const int64_t size = dataset.ok() ? Extent1d(dataset.get()) : -1;
  if (size < 0) return Damaged("/tokenizer is not a list of bytes");
  tokenizer_.resize(size);
  if (size > 0 && H5Dread(dataset.get(), H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                          tokenizer_.data()) < 0) {
    return Damaged(absl::StrCat("/tokenizer cannot be read: ", session.Error()));
  }
  return absl::OkStatus();
}

absl::Status Hdf5TokenFile::LocateTokens(Hdf5Handle file, int64_t file_size,
                                         const Hdf5Session& /*session*/) {
  Hdf5Handle dataset(H5Dopen2(file.get(), "/tokens", H5P_DEFAULT), H5Dclose);
  if (!dataset.ok()) return NotATokenFile("it has no data set /tokens");
  if (Extent1d(dataset.get()) != tokens()) {
    return Damaged(absl::StrCat("/offsets ends at ", tokens(), ", /tokens has ",
                                Extent1d(dataset.get()), " tokens"));
  }
  const Hdf5Handle type(H5Dget_type(dataset.get()), H5Tclose);
  const size_t width = H5Tget_size(type.get());
  if (H5Tget_class(type.get()) != H5T_INTEGER || H5Tget_sign(type.get()) != H5T_SGN_NONE ||
      (width != 2 && width != 4)) {
    return NotATokenFile("/tokens is not of unsigned 16 or 32 bit integers");
  }
  raw_.type = width == 2 ? TokenType::kU16 : TokenType::kU32;
  const Hdf5Handle creation(H5Dget_create_plist(dataset.get()), H5Pclose);
  const haddr_t address = H5Dget_offset(dataset.get());
  const bool in_place = H5Pget_layout(creation.get()) == H5D_CONTIGUOUS &&
                        H5Pget_external_count(creation.get()) == 0 &&
                        H5Tget_order(type.get()) == H5T_ORDER_LE && address != HADDR_UNDEF;
  if (!in_place) {
    chunked_ = std::move(dataset);
    chunked_file_ = std::move(file);
    return absl::OkStatus();
  }
  raw_.offset = static_cast<int64_t>(address);
  const int64_t end = raw_.offset + tokens() * static_cast<int64_t>(width);
  if (end > file_size) {
    return absl::DataLossError(absl::StrCat(raw_.path, " is truncated: ", end, " bytes expected, ",
                                            file_size, " found", kHowToMake));
  }
  return absl::OkStatus();
}

absl::Status Hdf5TokenFile::Initialize() {
  raw_.file = FileDescriptor(::open(raw_.path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status;
  if (!raw_.file.valid() || ::fstat(raw_.file.get(), &status) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open token data set ", raw_.path));
  }
  static constexpr char kSignature[8] = {'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
  char start[8] = {};
  if (::pread(raw_.file.get(), start, 8, 0) != 8 || std::memcmp(start, kSignature, 8) != 0) {
    return NotATokenFile("it is not an HDF5 file");
  }
  if (const int64_t end = StoredEnd(raw_.file.get()); end > status.st_size) {
    return absl::DataLossError(absl::StrCat(raw_.path, " is truncated: ", end, " bytes expected, ",
                                            status.st_size, " found", kHowToMake));
  }

  const Hdf5Session session;
  const Hdf5Handle access = AccessWithoutLocks();
  Hdf5Handle file(H5Fopen(raw_.path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file.ok()) return Damaged(absl::StrCat("HDF5 cannot open it: ", session.Error()));
  absl::Status result = ReadAttributes(file.get(), session);
  if (result.ok()) result = ReadOffsets(file.get(), session);
  if (result.ok()) result = ReadTokenizer(file.get(), session);
  if (result.ok()) result = LocateTokens(std::move(file), status.st_size, session);
  return result;
}

absl::Status Hdf5TokenFile::ReadChunked(int64_t begin, int64_t end, int32_t* out) const {
  if (begin == end) return absl::OkStatus();
  {
    const Hdf5Session session;
    const hsize_t start = begin, count = end - begin;
    const Hdf5Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose);
    const Hdf5Handle space(H5Dget_space(chunked_.get()), H5Sclose);
    // HDF5 clips what does not fit an int32 to its maximum, which no vocabulary contains.
    if (H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr) < 0 ||
        H5Dread(chunked_.get(), H5T_NATIVE_INT32, memory.get(), space.get(), H5P_DEFAULT, out) <
            0) {
      return Damaged(
          absl::StrCat("tokens [", begin, ", ", end, ") cannot be read: ", session.Error()));
    }
  }
  raw_.bytes_read.fetch_add((end - begin) * BytesOf(raw_.type), std::memory_order_relaxed);
  return CheckIds(out, end - begin, begin, raw_.vocabulary, raw_.path);
}

bool Exists(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(const std::string& path) {
  absl::string_view prefix = path;
  if (absl::ConsumeSuffix(&prefix, ".bin") || absl::ConsumeSuffix(&prefix, ".idx") ||
      (!Exists(path) && Exists(path + ".idx"))) {
    return OpenMegatronFile(std::string(prefix));
  }
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("cannot open token data set ", path, kHowToMake));
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not a file, so not a token data set", kHowToMake));
  }
  auto file = std::make_unique<Hdf5TokenFile>(path);
  const absl::Status result = file->Initialize();
  if (!result.ok()) return result;
  return file;
}

}  // namespace longspan
