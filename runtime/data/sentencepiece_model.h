// SentencePieceModel: the SentencePiece library behind an interface without Abseil, whose headers
// its own clash with. Thread-safe after Load.
#ifndef LONGSPAN_RUNTIME_DATA_SENTENCEPIECE_MODEL_H_
#define LONGSPAN_RUNTIME_DATA_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace longspan {

class SentencePieceModel {
 public:
  // Null, and the reason in `error`, when `model_bytes` is no model.
  static std::unique_ptr<SentencePieceModel> Load(const std::string& model_bytes,
                                                  std::string* error);
  virtual ~SentencePieceModel() = default;

  virtual int64_t pieces() const = 0;
  virtual int32_t end_of_sequence() const = 0;  // -1 where the model has none
  // Appends ids. `first`: the segment begins its text, so that a model that puts a space before
  // texts puts one here.
  virtual bool Encode(std::string_view segment, bool first, std::vector<int32_t>* ids,
                      std::string* error) const = 0;
  // ids in [0, pieces()).
  virtual std::string Decode(const std::vector<int32_t>& ids) const = 0;

  // See TrainSentencePiece in tokenizer.h.
  static bool Train(const std::vector<std::string>& lines, int64_t vocabulary,
                    int64_t maximum_line_bytes, std::string* model_bytes, std::string* error);
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_SENTENCEPIECE_MODEL_H_
