#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/data/sentencepiece_model.h"
#include "runtime/data/text_segment.h"
#include "runtime/data/tokenizer.h"

namespace longspan {
namespace {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<SentencePieceModel> model, std::string model_bytes)
      : model_(std::move(model)), model_bytes_(std::move(model_bytes)) {}

  std::string kind() const override { return "sentencepiece"; }
  int64_t vocabulary() const override { return model_->pieces(); }
  int32_t end_of_sequence() const override { return model_->end_of_sequence(); }

  absl::Status Encode(const std::string& text, std::vector<int32_t>* ids) const override {
    std::string_view rest = text;
    bool first = true;
    while (!rest.empty()) {
      const size_t size = FirstSegment(rest, /*end=*/true);
      const absl::Status status = EncodeSegment(rest.substr(0, size), first, ids);
      if (!status.ok()) return status;
      rest.remove_prefix(size);
      first = false;
    }
    return absl::OkStatus();
  }

  absl::Status EncodeSegment(std::string_view segment, bool first,
                             std::vector<int32_t>* ids) const override {
    std::string error;
    if (model_->Encode(segment, first, ids, &error)) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("SentencePiece cannot encode a text: ", error));
  }

  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids) const override {
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocabulary()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "token ", id, " is outside the SentencePiece model's 0..", vocabulary() - 1));
      }
    }
    return model_->Decode(ids);
  }

  std::string serialized() const override { return model_bytes_; }

 private:
  std::unique_ptr<SentencePieceModel> model_;
  std::string model_bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateSentencePieceTokenizer(
    const std::string& model_bytes) {
  std::string error;
  std::unique_ptr<SentencePieceModel> model = SentencePieceModel::Load(model_bytes, &error);
  if (model == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("not a SentencePiece model: ", error));
  }
  if (model->end_of_sequence() < 0) {
    return absl::InvalidArgumentError(
        "the SentencePiece model has no end-of-sequence piece (eos_id -1), which separates "
        "documents; train it with one");
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(model), model_bytes);
}

absl::StatusOr<std::string> TrainSentencePiece(const std::vector<std::string>& lines,
                                               int64_t vocabulary) {
  constexpr int64_t kFixedPieces = 256 + 2;  // bytes, <unk>, </s>
  if (vocabulary <= kFixedPieces || vocabulary > (1 << 24)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot train a vocabulary of ", vocabulary,
                     " pieces: it needs more than the 258 that stand for bytes, unknown and end of "
                     "sequence, and at most 16777216"));
  }
  std::vector<std::string> usable;
  usable.reserve(lines.size());
  std::copy_if(lines.begin(), lines.end(), std::back_inserter(usable), [](const std::string& line) {
    return !line.empty() && static_cast<int64_t>(line.size()) <= kTrainingLineBytes && IsUtf8(line);
  });
  if (usable.empty()) {
    return absl::InvalidArgumentError("cannot train a tokenizer: the sample has no UTF-8 text");
  }
  std::string model_bytes, error;
  if (!SentencePieceModel::Train(usable, vocabulary, kTrainingLineBytes, &model_bytes, &error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot train a vocabulary of ", vocabulary, " pieces on ", usable.size(),
                     " lines of text: ", error, " Try another size, or more text."));
  }
  return model_bytes;
}

}  // namespace longspan
