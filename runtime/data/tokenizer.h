// Tokenizer: text <-> token ids. The byte tokenizer (ids 0..255, end of sequence 256) or a
// SentencePiece model. Thread-safe after creation.
#ifndef LONGSPAN_RUNTIME_DATA_TOKENIZER_H_
#define LONGSPAN_RUNTIME_DATA_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string kind() const = 0;  // "byte" or "sentencepiece"
  virtual int64_t vocabulary() const = 0;
  virtual int32_t end_of_sequence() const = 0;
  // Appends the ids of `text`, of any length, without end of sequence, to `ids`.
  virtual absl::Status Encode(const std::string& text, std::vector<int32_t>* ids) const = 0;
  // The same for one segment of a longer text, cut as FirstSegment (text_segment.h) cuts it.
  // `first`: it begins the text. The ids of all segments of a text, one after another, are those
  // that Encode gives.
  virtual absl::Status EncodeSegment(std::string_view segment, bool first,
                                     std::vector<int32_t>* ids) const = 0;
  // End of sequence and other control ids give no text. InvalidArgument for ids outside the
  // vocabulary.
  virtual absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids) const = 0;
  // Bytes that recreate it ("" for the byte tokenizer).
  virtual std::string serialized() const = 0;
};

std::unique_ptr<Tokenizer> CreateByteTokenizer();

// `model_bytes`: the content of a .model file. With byte pieces and unchanged white space (as
// TrainSentencePiece makes them) Decode(Encode(text)) == text for any bytes; other models normalise
// as they were trained to.
absl::StatusOr<std::unique_ptr<Tokenizer>> CreateSentencePieceTokenizer(
    const std::string& model_bytes);

// By what a data set or a run stores.
absl::StatusOr<std::unique_ptr<Tokenizer>> CreateTokenizer(const std::string& kind,
                                                           const std::string& serialized);

// Trains a lossless byte-pair model with exactly `vocabulary` pieces: 256 byte pieces, <unk>, </s>,
// no normalisation, no added space. `lines`: UTF-8 without newlines, at most kTrainingLineBytes
// each; others are skipped. Returns the .model file's bytes. InvalidArgument when the lines cannot
// fill the vocabulary or it is too small for their characters.
constexpr int64_t kTrainingLineBytes = 4096;
absl::StatusOr<std::string> TrainSentencePiece(const std::vector<std::string>& lines,
                                               int64_t vocabulary);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_TOKENIZER_H_
