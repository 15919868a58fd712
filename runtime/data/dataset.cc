#include "runtime/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/device/check.h"
#include "runtime/data/random_order.h"

namespace longspan {
namespace {

// Keys of independent pseudo-random streams drawn from one seed.
constexpr uint64_t kValidationStream = 0x76616C6964617465;
constexpr uint64_t kEpochStream = 0x65706F6368000000;

struct Source {
  std::unique_ptr<TokenFile> file;
  double weight = 1.0;
  // First training sequence of each document, documents + 1 entries; documents that are dropped or
  // held out have none.
  std::vector<int64_t> first_sequence;
  int64_t training_tokens = 0;
  int64_t sequences() const { return first_sequence.back(); }
};

class FileDataset final : public Dataset {
 public:
  explicit FileDataset(const DatasetOptions& options) : options_(options) {}

  absl::Status Initialize();

  DataCursor Begin() const override {
    DataCursor cursor;
    cursor.sources.resize(sources_.size());
    return cursor;
  }

  std::vector<SequenceRef> NextBatch(DataCursor& cursor, int64_t tokens) const override;

  const std::vector<SequenceRef>& validation() const override { return validation_; }

  absl::Status Read(const SequenceRef& sequence, int64_t begin, int64_t end,
                    int32_t* out) const override {
    if (begin < 0 || begin > end || end > sequence.length) {
      return absl::OutOfRangeError(absl::StrCat("positions [", begin, ", ", end, "] of ",
                                                Describe(sequence), ", which has ",
                                                sequence.length));
    }
    return FileOf(sequence).Read(sequence.token_begin + begin, sequence.token_begin + end + 1, out);
  }

  int64_t sequences() const override {
    int64_t total = 0;
    for (const Source& source : sources_) total += source.sequences();
    return total;
  }
  int64_t training_tokens() const override {
    int64_t total = 0;
    for (const Source& source : sources_) total += source.training_tokens;
    return total;
  }
  int64_t dropped_documents() const override { return dropped_; }
  int64_t longest_sequence() const override { return longest_; }
  int64_t vocabulary() const override {
    int64_t largest = 0;
    ForEachFile([&](const TokenFile& file) { largest = std::max(largest, file.vocabulary()); });
    return largest;
  }
  std::string tokenizer_kind() const override {
    const TokenFile* file = TokenizerFile();
    return file == nullptr ? "none" : file->tokenizer_kind();
  }
  absl::StatusOr<std::string> tokenizer() const override {
    const TokenFile* file = TokenizerFile();
    if (file == nullptr) return std::string();
    return file->tokenizer();
  }
  int64_t bytes_read() const override {
    int64_t total = 0;
    ForEachFile([&](const TokenFile& file) { total += file.bytes_read(); });
    return total;
  }
  std::string fingerprint() const override { return fingerprint_; }
  std::string Describe(const SequenceRef& sequence) const override {
    const TokenFile& file = FileOf(sequence);
    const std::string document = absl::StrCat("document ", sequence.document, " in ", file.path());
    const bool whole = Inputs(file, sequence.document) == sequence.length;
    return whole ? document : absl::StrCat("piece ", sequence.piece, " of ", document);
  }

 private:
  static int64_t Inputs(const TokenFile& file, int64_t document) {
    return file.document_begin(document + 1) - file.document_begin(document) - 1;
  }
  // 0 for documents that are dropped.
  int64_t Pieces(int64_t inputs) const {
    if (inputs < 1 || (options_.drop_long_documents && inputs > options_.max_length)) return 0;
    return (inputs - 1) / options_.max_length + 1;
  }
  SequenceRef Piece(const TokenFile& file, int32_t source, int64_t document, int64_t piece) const {
    const int64_t begin = piece * options_.max_length;
    return {source, document, piece, file.document_begin(document) + begin,
            std::min(options_.max_length, Inputs(file, document) - begin)};
  }
  void AddValidation(const TokenFile& file, int32_t source, int64_t document) {
    const int64_t pieces = Pieces(Inputs(file, document));
    for (int64_t piece = 0; piece < pieces; ++piece) {
      validation_.push_back(Piece(file, source, document, piece));
      longest_ = std::max(longest_, validation_.back().length);
    }
  }
  const TokenFile& FileOf(const SequenceRef& sequence) const {
    return sequence.source < 0 ? *validation_file_ : *sources_[sequence.source].file;
  }
  template <typename Function>
  void ForEachFile(const Function& function) const {
    for (const Source& source : sources_) function(*source.file);
    if (validation_file_ != nullptr) function(*validation_file_);
  }
  const TokenFile* TokenizerFile() const {
    for (const Source& source : sources_) {
      if (source.file->tokenizer_kind() != "none") return source.file.get();
    }
    return nullptr;
  }

  absl::Status CheckOptions() const;
  absl::Status CheckTokenizers() const;
  absl::StatusOr<Source> OpenSource(int32_t index);
  std::string ComputeFingerprint() const;
  // The sequence that comes next, and its source.
  SequenceRef Peek(const DataCursor& cursor) const;

  DatasetOptions options_;
  std::vector<Source> sources_;
  std::unique_ptr<TokenFile> validation_file_;
  std::vector<SequenceRef> validation_;
  int64_t dropped_ = 0;
  int64_t longest_ = 0;
  std::string fingerprint_;
};

absl::Status FileDataset::CheckOptions() const {
  if (options_.sources.empty()) {
    return absl::InvalidArgumentError(
        "no data: data.sources names the token data sets to train on, made by `longspan data "
        "build`");
  }
  for (const DataSource& source : options_.sources) {
    if (!std::isfinite(source.weight) || source.weight <= 0) {
      return absl::InvalidArgumentError(absl::StrCat("data.sources: the weight of ", source.path,
                                                     " is ", source.weight,
                                                     "; weights are above 0"));
    }
  }
  if (options_.max_length < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("data.max_length is ", options_.max_length, "; it is at least 1 token"));
  }
  if (!(options_.validation_share >= 0 && options_.validation_share < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("data.validation is ", options_.validation_share,
                                                   "; a share of documents is in [0, 1)"));
  }
  if (options_.validation_share > 0 && !options_.validation_path.empty()) {
    return absl::InvalidArgumentError(
        "data.validation is a share of documents or a path, not both");
  }
  return absl::OkStatus();
}

absl::StatusOr<Source> FileDataset::OpenSource(int32_t index) {
  absl::StatusOr<std::unique_ptr<TokenFile>> file = TokenFile::Open(options_.sources[index].path);
  if (!file.ok()) return file.status();
  Source source;
  source.file = *std::move(file);
  source.weight = options_.sources[index].weight;
  const int64_t documents = source.file->documents();
  const uint64_t validation_key = HashOf(options_.seed, kValidationStream, index);
  int64_t held_out = 0;
  source.first_sequence.reserve(documents + 1);
  source.first_sequence.push_back(0);
  for (int64_t document = 0; document < documents; ++document) {
    const int64_t inputs = Inputs(*source.file, document);
    int64_t pieces = Pieces(inputs);
    const uint64_t bits = HashOf(validation_key, document, 0) >> 11;
    if (pieces == 0) {
      ++dropped_;
    } else if (static_cast<double>(bits) * 0x1p-53 < options_.validation_share) {
      AddValidation(*source.file, index, document);
      pieces = 0;
      ++held_out;
    } else {
      source.training_tokens += inputs;
      longest_ = std::max(longest_, std::min(inputs, options_.max_length));
    }
    source.first_sequence.push_back(source.first_sequence.back() + pieces);
  }
  if (source.sequences() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("nothing is left to train on in ", source.file->path(), ": of its ", documents,
                     " documents ", held_out, " are held out for validation, the others are ",
                     options_.drop_long_documents
                         ? absl::StrCat("shorter than 2 tokens or longer than data.max_length = ",
                                        options_.max_length)
                         : std::string("shorter than 2 tokens")));
  }
  return source;
}

absl::Status FileDataset::CheckTokenizers() const {
  const TokenFile* first = TokenizerFile();
  if (first == nullptr) return absl::OkStatus();
  const absl::StatusOr<std::string> expected = first->tokenizer();
  if (!expected.ok()) return expected.status();
  absl::Status result;
  ForEachFile([&](const TokenFile& file) {
    if (!result.ok() || file.tokenizer_kind() == "none") return;
    const absl::StatusOr<std::string> found = file.tokenizer();
    if (!found.ok()) {
      result = found.status();
    } else if (file.tokenizer_kind() != first->tokenizer_kind() || *found != *expected) {
      result = absl::InvalidArgumentError(absl::StrCat(
          file.path(), " and ", first->path(),
          " were made with different tokenizers; build both with the same --tokenizer"));
    }
  });
  return result;
}

std::string FileDataset::ComputeFingerprint() const {
  uint64_t hash = HashOf(options_.seed, options_.max_length, options_.drop_long_documents);
  const auto mix = [&hash](int64_t a, int64_t b) { hash = HashOf(hash, a, b); };
  const auto mix_text = [&](const std::string& text) {
    mix(static_cast<int64_t>(text.size()), 0);
    for (const char c : text) mix(c, 0);
  };
  mix_text(absl::StrFormat("%a", options_.validation_share));
  ForEachFile([&](const TokenFile& file) {
    mix(file.documents(), file.tokens());
    for (int64_t d = 0; d < file.documents(); ++d) mix(file.document_begin(d + 1), d);
    mix(file.vocabulary(), file.end_of_sequence());
    mix_text(file.tokenizer_kind());
    const absl::StatusOr<std::string> tokenizer = file.tokenizer();
    if (tokenizer.ok()) mix_text(*tokenizer);
  });
  for (const Source& source : sources_) {
    mix(source.sequences(), source.training_tokens);
    mix_text(absl::StrFormat("%a", source.weight));
  }
  mix(static_cast<int64_t>(validation_.size()), validation_file_ != nullptr);
  return absl::StrFormat("%016x", hash);
}

absl::Status FileDataset::Initialize() {
  absl::Status status = CheckOptions();
  if (!status.ok()) return status;
  for (size_t i = 0; i < options_.sources.size(); ++i) {
    absl::StatusOr<Source> source = OpenSource(static_cast<int32_t>(i));
    if (!source.ok()) return source.status();
    sources_.push_back(*std::move(source));
  }
  if (!options_.validation_path.empty()) {
    absl::StatusOr<std::unique_ptr<TokenFile>> file = TokenFile::Open(options_.validation_path);
    if (!file.ok()) return file.status();
    validation_file_ = *std::move(file);
    for (int64_t document = 0; document < validation_file_->documents(); ++document) {
      AddValidation(*validation_file_, /*source=*/-1, document);
    }
    if (validation_.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("data.validation: no document of ",
                                                     options_.validation_path, " can be used"));
    }
  }
  status = CheckTokenizers();
  if (status.ok()) fingerprint_ = ComputeFingerprint();
  return status;
}

SequenceRef FileDataset::Peek(const DataCursor& cursor) const {
  size_t chosen = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < sources_.size(); ++i) {
    const double drawn = static_cast<double>(cursor.sources[i].tokens) / sources_[i].weight;
    if (drawn < least) {
      least = drawn;
      chosen = i;
    }
  }
  const Source& source = sources_[chosen];
  const DataCursor::Source& place = cursor.sources[chosen];
  const uint64_t key =
      HashOf(HashOf(options_.seed, kEpochStream, chosen), static_cast<uint64_t>(place.epoch), 0);
  const int64_t sequence = Permutation(source.sequences(), key).At(place.next);
  const auto after =
      std::upper_bound(source.first_sequence.begin(), source.first_sequence.end(), sequence);
  const int64_t document = after - source.first_sequence.begin() - 1;
  return Piece(*source.file, static_cast<int32_t>(chosen), document,
               sequence - source.first_sequence[document]);
}

std::vector<SequenceRef> FileDataset::NextBatch(DataCursor& cursor, int64_t tokens) const {
  LONGSPAN_CHECK(cursor.sources.size() == sources_.size(), "the cursor is of another data set");
  std::vector<SequenceRef> batch;
  int64_t taken = 0;
  while (true) {
    const SequenceRef sequence = Peek(cursor);
    if (!batch.empty() && sequence.length > tokens - taken) return batch;
    taken += sequence.length;
    batch.push_back(sequence);
    DataCursor::Source& place = cursor.sources[sequence.source];
    place.tokens += sequence.length;
    if (++place.next == sources_[sequence.source].sequences()) {
      place.next = 0;
      ++place.epoch;
    }
    ++cursor.sequences;
    // Nothing can follow; finding out what would costs a search.
    if (taken >= tokens) return batch;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> Dataset::Open(const DatasetOptions& options) {
  auto dataset = std::make_unique<FileDataset>(options);
  const absl::Status status = dataset->Initialize();
  if (!status.ok()) return status;
  return dataset;
}

}  // namespace longspan
