#include "runtime/data/sentencepiece_model.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <thread>
#include <unordered_map>
#include <utility>

#include "runtime/data/text_segment.h"

namespace longspan {
namespace {

using sentencepiece::SentencePieceProcessor;

// SentencePiece writes a space as this character (U+2581).
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

// A serialized ModelProto that only says normalizer_spec.add_dummy_prefix. Protocol buffers merge
// what is appended, so model bytes followed by this are the same model with that one setting
// changed.
std::string DummyPrefixPatch(bool on) { return {'\x1A', '\x02', '\x18', on ? '\x01' : '\x00'}; }

// Statuses of the library read "Internal: ./src/file.cc(660) [condition] reason".
std::string ReasonOf(const sentencepiece::util::Status& status) {
  const std::string text = status.ToString();
  const size_t bracket = text.find("] ");
  return bracket == std::string::npos ? text : text.substr(bracket + 2);
}

std::string WithSpaces(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    if (piece.substr(0, kSpaceMark.size()) == kSpaceMark) {
      text.push_back(' ');
      piece.remove_prefix(kSpaceMark.size());
    } else {
      text.push_back(piece.front());
      piece.remove_prefix(1);
    }
  }
  return text;
}

class LoadedModel final : public SentencePieceModel {
 public:
  bool Initialize(const std::string& model_bytes, std::string* error) {
    if (model_bytes.empty()) {  // the library aborts on it
      *error = "it is empty";
      return false;
    }
    const auto status = first_.LoadFromSerializedProto(model_bytes);
    if (!status.ok()) {
      *error = ReasonOf(status);
      return false;
    }
    if (first_.GetPieceSize() <= 0) {
      *error = "it has no pieces";
      return false;
    }
    ReadPieces();

    // Settings that the library does not tell are seen in what the model does.
    const std::vector<std::string> pieces = first_.EncodeAsPieces("a");
    adds_prefix_ =
        !pieces.empty() && pieces[0].compare(0, kSpaceMark.size(), kSpaceMark.data()) == 0;
    const bool trims_spaces = first_.EncodeAsIds("a  b ") == first_.EncodeAsIds("a b");
    lossless_ = has_all_bytes_ && !trims_spaces;

    // A later segment of a text must look to the model as if the text before it were there. Models
    // that trim white space lose the space at the cut: the added one replaces it. In others nothing
    // is lost and nothing may be added.
    std::string rest_bytes = model_bytes + DummyPrefixPatch(trims_spaces);
    const auto rest_status = rest_.LoadFromSerializedProto(rest_bytes);
    if (!rest_status.ok()) *error = ReasonOf(rest_status);
    return rest_status.ok();
  }

  int64_t pieces() const override { return first_.GetPieceSize(); }
  int32_t end_of_sequence() const override { return first_.eos_id(); }

  bool Encode(std::string_view segment, bool first, std::vector<int32_t>* ids,
              std::string* error) const override {
    if (!lossless_) return EncodeRun(segment, first, ids, error);
    // The library would replace malformed bytes, and decode U+2581 as a space: both go as byte
    // pieces.
    size_t run = 0, at = 0;
    while (at < segment.size()) {
      const size_t size = Utf8Character(segment.substr(at));
      const bool as_bytes = size == 0 || segment.substr(at, size) == kSpaceMark ||
                            (segment[at] == ' ' && !has_space_);
      if (!as_bytes) {
        at += size;
        continue;
      }
      if (!EncodeRun(segment.substr(run, at - run), first && run == 0, ids, error)) return false;
      for (run = at + std::max<size_t>(size, 1); at < run; ++at) {
        ids->push_back(byte_ids_[static_cast<uint8_t>(segment[at])]);
      }
    }
    return EncodeRun(segment.substr(run), first && run == 0, ids, error);
  }

  std::string Decode(const std::vector<int32_t>& ids) const override {
    std::string text;
    bool strip = adds_prefix_;
    for (const int32_t id : ids) {
      const std::string& piece = text_[id];
      if (piece.empty()) continue;
      const bool drop_space = std::exchange(strip, false) && piece[0] == ' ';
      text.append(piece, drop_space ? 1 : 0);
    }
    return text;
  }

 private:
  void ReadPieces() {
    std::array<bool, 256> found{};
    text_.resize(first_.GetPieceSize());
    for (int id = 0; id < first_.GetPieceSize(); ++id) {
      const std::string& piece = first_.IdToPiece(id);
      unsigned byte = 0;
      if (first_.IsByte(id) && std::sscanf(piece.c_str(), "<0x%02X>", &byte) == 1) {
        byte_ids_[byte] = id;
        found[byte] = true;
        text_[id] = std::string(1, static_cast<char>(byte));
      } else if (first_.IsUnknown(id)) {
        text_[id] = " \xE2\x81\x87 ";  // U+2047, as the library shows it
      } else if (!first_.IsControl(id)) {
        text_[id] = WithSpaces(piece);
      }
    }
    has_space_ = !first_.IsUnknown(first_.PieceToId(kSpaceMark));
    has_all_bytes_ = std::all_of(found.begin(), found.end(), [](bool f) { return f; });
  }

  bool EncodeRun(std::string_view run, bool first, std::vector<int32_t>* ids,
                 std::string* error) const {
    if (run.empty()) return true;
    std::vector<int> run_ids;
    const auto status = (first ? first_ : rest_).Encode(run, &run_ids);
    if (!status.ok()) {
      *error = ReasonOf(status);
      return false;
    }
    ids->insert(ids->end(), run_ids.begin(), run_ids.end());
    return true;
  }

  SentencePieceProcessor first_, rest_;
  std::array<int32_t, 256> byte_ids_{};
  std::vector<std::string> text_;  // of each piece; "" for control pieces
  bool has_all_bytes_ = false;
  bool has_space_ = false;
  bool adds_prefix_ = false;
  bool lossless_ = false;
};

class LineIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::vector<std::string>& lines) : lines_(lines) {}
  bool done() const override { return next_ >= lines_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return lines_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& lines_;
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<SentencePieceModel> SentencePieceModel::Load(const std::string& model_bytes,
                                                             std::string* error) {
  auto model = std::make_unique<LoadedModel>();
  if (!model->Initialize(model_bytes, error)) return nullptr;
  return model;
}

bool SentencePieceModel::Train(const std::vector<std::string>& lines, int64_t vocabulary,
                               int64_t maximum_line_bytes, std::string* model_bytes,
                               std::string* error) {
  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1u, 16u);
  LineIterator iterator(lines);
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {
          {"model_type", "bpe"},
          {"vocab_size", std::to_string(vocabulary)},
          {"max_sentence_length", std::to_string(maximum_line_bytes)},
          {"num_threads", std::to_string(threads)},
          {"byte_fallback", "true"},
          {"character_coverage", "0.9995"},
          {"normalization_rule_name", "identity"},
          {"remove_extra_whitespaces", "false"},
          {"add_dummy_prefix", "false"},
          {"allow_whitespace_only_pieces", "true"},
          {"split_digits", "true"},
          {"unk_id", "0"},
          {"eos_id", "1"},
          {"bos_id", "-1"},
          {"pad_id", "-1"},
          {"minloglevel", "3"},  // its progress log is not ours to show
      },
      &iterator, model_bytes);
  if (!status.ok()) *error = ReasonOf(status);
  return status.ok();
}

}  // namespace longspan
