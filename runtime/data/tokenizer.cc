#include "runtime/data/tokenizer.h"

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

class ByteTokenizer final : public Tokenizer {
 public:
  std::string kind() const override { return "byte"; }
  int64_t vocabulary() const override { return kEndOfSequence + 1; }
  int32_t end_of_sequence() const override { return kEndOfSequence; }

  absl::Status Encode(const std::string& text, std::vector<int32_t>* ids) const override {
    return EncodeSegment(text, /*first=*/true, ids);
  }

  absl::Status EncodeSegment(std::string_view segment, bool /*first*/,
                             std::vector<int32_t>* ids) const override {
    const size_t old_size = ids->size();
    ids->resize(old_size + segment.size());
    for (size_t i = 0; i < segment.size(); ++i) {
      (*ids)[old_size + i] = static_cast<uint8_t>(segment[i]);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const int32_t id : ids) {
      if (id < 0 || id > kEndOfSequence) {
        return absl::InvalidArgumentError(
            absl::StrCat("token ", id, " is outside the byte tokenizer's 0..256"));
      }
      if (id < kEndOfSequence) text.push_back(static_cast<char>(id));
    }
    return text;
  }

  std::string serialized() const override { return ""; }

 private:
  static constexpr int32_t kEndOfSequence = 256;
};

}  // namespace

std::unique_ptr<Tokenizer> CreateByteTokenizer() { return std::make_unique<ByteTokenizer>(); }

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateTokenizer(const std::string& kind,
                                                           const std::string& serialized) {
  if (kind == "byte") return CreateByteTokenizer();
  if (kind == "sentencepiece") return CreateSentencePieceTokenizer(serialized);
  return absl::InvalidArgumentError(absl::StrCat("no tokenizer of kind \"", kind,
                                                 "\"; known are \"byte\" and \"sentencepiece\""));
}

}  // namespace longspan
