#include "runtime/data/build.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <sstream>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/data/random_order.h"
#include "runtime/data/text_segment.h"
#include "runtime/data/text_source.h"
#include "runtime/data/token_file.h"
#include "runtime/data/token_file_writer.h"
#include "runtime/data/tokenizer.h"

namespace longspan {
namespace {

using Progress = std::function<void(const BuildProgress&)>;

class ProgressMeter {
 public:
  ProgressMeter(const Progress& progress, const char* phase, int64_t total)
      : progress_(progress), state_{phase, 0, total, 0} {
    if (progress_) progress_(state_);
  }
  void Advance(int64_t bytes) {
    state_.done += bytes;
    if (state_.done - shown_ < (1 << 20)) return;
    shown_ = state_.done;
    if (progress_) progress_(state_);
  }
  void CountDocument() { ++state_.documents; }

 private:
  const Progress& progress_;
  BuildProgress state_;
  int64_t shown_ = 0;
};

// Keeps whole lines, each with the same chance, decided by its number.
class LineSample final : public DocumentSink {
 public:
  LineSample(double share, int64_t maximum_bytes, ProgressMeter meter)
      : share_(share), maximum_bytes_(maximum_bytes), meter_(std::move(meter)) {}

  absl::Status AppendText(std::string_view part) override {
    while (!part.empty()) {
      const size_t end = std::min(part.find('\n'), part.size());
      AppendToLine(part.substr(0, end));
      part.remove_prefix(end);
      if (part.empty()) break;
      EndLine();
      part.remove_prefix(1);
    }
    return absl::OkStatus();
  }
  absl::Status EndDocument() override {
    EndLine();
    meter_.CountDocument();
    return absl::OkStatus();
  }
  void InputRead(int64_t bytes) override { meter_.Advance(bytes); }

  const std::vector<std::string>& lines() const { return lines_; }

 private:
  // Longer lines become several, cut between characters.
  void AppendToLine(std::string_view part) {
    while (!part.empty()) {
      const size_t room = kTrainingLineBytes - line_.size();
      line_.append(part.substr(0, room));
      part.remove_prefix(std::min(room, part.size()));
      if (part.empty()) return;
      size_t cut = line_.size();
      for (size_t back = 1; back <= 4; ++back) {
        const auto byte = static_cast<unsigned char>(line_[line_.size() - back]);
        if ((byte & 0xC0) == 0x80) continue;
        if (byte >= 0xC0) cut = line_.size() - back;
        break;
      }
      const std::string rest = line_.substr(cut);
      line_.resize(cut);
      EndLine();
      line_ = rest;
    }
  }

  void EndLine() {
    const double chance = static_cast<double>(HashOf(0, 0, number_++) >> 11) * 0x1p-53;
    if (chance < share_ && bytes_ < maximum_bytes_ && IsUtf8(line_)) {
      bytes_ += static_cast<int64_t>(line_.size());
      lines_.push_back(line_);
    }
    line_.clear();
  }

  double share_;
  int64_t maximum_bytes_;
  ProgressMeter meter_;
  std::string line_;
  std::vector<std::string> lines_;
  uint64_t number_ = 0;
  int64_t bytes_ = 0;
};

class TokenSink final : public DocumentSink {
 public:
  TokenSink(const Tokenizer& tokenizer, TokenFileWriter* writer, ProgressMeter meter)
      : tokenizer_(tokenizer), writer_(writer), meter_(std::move(meter)) {}

  absl::Status AppendText(std::string_view part) override {
    pending_.append(part);
    return EncodeSegments(/*end=*/false);
  }

  absl::Status EndDocument() override {
    absl::Status status = EncodeSegments(/*end=*/true);
    if (!status.ok()) return status;
    first_ = true;
    meter_.CountDocument();
    ids_.assign(1, tokenizer_.end_of_sequence());
    status = writer_->Append(ids_);
    return status.ok() ? writer_->EndDocument() : status;
  }

  void InputRead(int64_t bytes) override { meter_.Advance(bytes); }

 private:
  absl::Status EncodeSegments(bool end) {
    std::string_view rest = pending_;
    while (const size_t size = FirstSegment(rest, end)) {
      ids_.clear();
      absl::Status status = tokenizer_.EncodeSegment(rest.substr(0, size), first_, &ids_);
      if (status.ok()) status = writer_->Append(ids_);
      if (!status.ok()) return status;
      rest.remove_prefix(size);
      first_ = false;
    }
    pending_.erase(0, pending_.size() - rest.size());
    // A whole JSON document may have passed through.
    if (pending_.capacity() > (16 << 20)) pending_.shrink_to_fit();
    return absl::OkStatus();
  }

  const Tokenizer& tokenizer_;
  TokenFileWriter* writer_;
  ProgressMeter meter_;
  std::string pending_;
  bool first_ = true;
  std::vector<int32_t> ids_;
};

absl::Status NoText(const TextOptions& options, const TextReport& report) {
  std::string found = absl::StrCat(report.files, " files");
  if (report.skipped_binary > 0) absl::StrAppend(&found, ", ", report.skipped_binary, " binary");
  if (report.skipped_empty > 0) absl::StrAppend(&found, ", ", report.skipped_empty, " empty");
  if (report.unreadable > 0) {
    absl::StrAppend(&found, ", ", report.unreadable, " unreadable, first ",
                    report.first_unreadable);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no text in ", options.inputs.empty() ? "no inputs" : options.inputs[0],
                   options.inputs.size() > 1 ? " and the other inputs" : "", " (", found, ")",
                   options.extensions.empty() ? "" : "; do the --extensions fit?"));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TrainTokenizer(const BuildOptions& options,
                                                          int64_t input_bytes,
                                                          const Progress& progress) {
  // With limits on the corpus only its beginning is read, all of which may be needed.
  const bool limited = options.text.maximum_documents > 0 || options.text.maximum_bytes > 0;
  const int64_t corpus_bytes = limited ? options.text.maximum_bytes : input_bytes;
  const double share =
      corpus_bytes > 0
          ? std::min(1.0, static_cast<double>(options.train_sample_bytes) / corpus_bytes)
          : 1.0;
  LineSample sample(share, 2 * options.train_sample_bytes,
                    ProgressMeter(progress, "sample", input_bytes));
  const absl::StatusOr<TextReport> report = ReadDocuments(options.text, &sample);
  if (!report.ok()) return report.status();
  if (report->documents == 0) return NoText(options.text, *report);
  const ProgressMeter meter(progress, "train", 0);
  const absl::StatusOr<std::string> model =
      TrainSentencePiece(sample.lines(), options.train_vocabulary);
  if (!model.ok()) return model.status();
  return CreateSentencePieceTokenizer(*model);
}

// The tokenizer that another token data set was made with.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOfDataSet(const std::string& path) {
  const absl::StatusOr<std::unique_ptr<TokenFile>> file = TokenFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<std::string> serialized = (*file)->tokenizer();
  if (!serialized.ok()) return serialized.status();
  return CreateTokenizer((*file)->tokenizer_kind(), *serialized);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char start[4] = {};
  std::ostringstream stream;
  const bool readable = static_cast<bool>(file.read(start, sizeof(start)));
  const bool data_set = readable && std::string_view(start, 4) == "\x89HDF";
  if (!readable || !file.seekg(0) || !(data_set || stream << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("cannot read tokenizer ", path,
                                            "; --tokenizer takes \"byte\", a SentencePiece .model, "
                                            "or a token data set to use the tokenizer of"));
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      data_set ? TokenizerOfDataSet(path) : CreateSentencePieceTokenizer(stream.str());
  if (tokenizer.ok()) return tokenizer;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", std::string(tokenizer.status().message())));
}

}  // namespace

absl::StatusOr<BuildReport> BuildTokenFile(const BuildOptions& options, const Progress& progress) {
  if (options.text.inputs.empty()) {
    return absl::InvalidArgumentError("no inputs: name directories, text files or .jsonl files");
  }
  const bool train = options.train_vocabulary != 0;
  if (train && options.tokenizer != "byte") {
    return absl::InvalidArgumentError(
        "--tokenizer FILE and --train-vocab exclude each other: use a model or train one");
  }
  if (train && options.train_sample_bytes <= 0) {
    return absl::InvalidArgumentError("the training sample needs a positive size");
  }
  const absl::StatusOr<int64_t> input_bytes = MeasureInputs(options.text);
  if (!input_bytes.ok()) return input_bytes.status();
  // Before the long work, so that a place that cannot be written to is known at once.
  absl::StatusOr<std::unique_ptr<TokenFileWriter>> writer = TokenFileWriter::Create(options.output);
  if (!writer.ok()) return writer.status();

  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      train                         ? TrainTokenizer(options, *input_bytes, progress)
      : options.tokenizer == "byte" ? CreateByteTokenizer()
                                    : LoadTokenizer(options.tokenizer);
  if (!tokenizer.ok()) return tokenizer.status();
  (*writer)->SetTokenizer((*tokenizer)->kind(), (*tokenizer)->vocabulary(),
                          (*tokenizer)->end_of_sequence(), (*tokenizer)->serialized());

  TokenSink sink(**tokenizer, writer->get(), ProgressMeter(progress, "tokenize", *input_bytes));
  const absl::StatusOr<TextReport> text = ReadDocuments(options.text, &sink);
  if (!text.ok()) return text.status();
  if (text->documents == 0) return NoText(options.text, *text);
  const absl::Status status = (*writer)->Finish([&](int64_t done, int64_t total) {
    if (progress) progress({"write", done, total, (*writer)->documents()});
  });
  if (!status.ok()) return status;

  BuildReport report;
  report.text = *text;
  report.tokens = (*writer)->tokens();
  report.vocabulary = (*tokenizer)->vocabulary();
  report.tokenizer_kind = (*tokenizer)->kind();
  return report;
}

}  // namespace longspan
