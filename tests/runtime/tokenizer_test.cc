#include "runtime/data/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "runtime/data/text_segment.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

std::string AllBytes() {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  return text;
}

// Lines that look like code: words, indentation, digits, some characters beyond ASCII.
std::vector<std::string> SampleLines(int count) {
  const std::vector<std::string> words = {"return", "if",     "else",  "value", "index", "(",
                                          ")",      "{",      "}",     "==",    "\"ü\"", "größe",
                                          "size_t", "static", "const", "int",   "42",    "//"};
  std::mt19937 random(7);
  std::vector<std::string> lines;
  for (int i = 0; i < count; ++i) {
    std::string line =
        random() % 2 ? std::string(random() % 3, '\t') : std::string(2 * (random() % 4), ' ');
    const int length = 1 + static_cast<int>(random() % 8);
    for (int w = 0; w < length; ++w) line += (w ? " " : "") + words[random() % words.size()];
    lines.push_back(line);
  }
  return lines;
}

std::string Join(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

const std::string& TrainedModel() {
  static const std::string model = [] {
    const absl::StatusOr<std::string> trained = TrainSentencePiece(SampleLines(2000), 380);
    EXPECT_TRUE(trained.ok()) << trained.status();
    return trained.ok() ? *trained : std::string();
  }();
  return model;
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids;
  const absl::Status status = tokenizer.Encode(text, &ids);
  EXPECT_TRUE(status.ok()) << status;
  return ids;
}

void ExpectRoundTrip(const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<int32_t> ids = Ids(tokenizer, text);
  for (const int32_t id : ids) {
    ASSERT_GE(id, 0);
    ASSERT_LT(id, tokenizer.vocabulary());
    ASSERT_NE(id, tokenizer.end_of_sequence());
  }
  const absl::StatusOr<std::string> decoded = tokenizer.Decode(ids);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(*decoded == text) << "text of " << text.size() << " bytes: " << text.substr(0, 200);
}

std::vector<std::string> DifficultTexts() {
  std::mt19937 random(3);
  std::string noise, words;
  for (int i = 0; i < 30000; ++i) noise.push_back(static_cast<char>(random()));
  for (int i = 0; i < 6000; ++i) words += std::string(1 + random() % 9, 'a' + random() % 26) + " ";
  return {"",
          " ",
          "  two  spaces, leading, inner and trailing  ",
          "\tint main() {\n\t\treturn 0;  // tab\r\n}\n\n\n",
          "\n\n\n",
          "größe ▁ ▅ \xEF\xBF\xBD <unk> </s> <0x41> 漢字 🙂",
          AllBytes(),
          noise,
          words,
          std::string(50000, 'x'),
          std::string(50000, ' '),
          std::string(50000, '\n'),
          std::string(40000, '\x80'),
          "\xE2\x96",  // the beginning of a character
          Join(SampleLines(3000))};
}

TEST(ByteTokenizer, GivesBytesAsIds) {
  const auto tokenizer = CreateByteTokenizer();
  EXPECT_EQ(tokenizer->kind(), "byte");
  EXPECT_EQ(tokenizer->vocabulary(), 257);
  EXPECT_EQ(tokenizer->end_of_sequence(), 256);
  EXPECT_EQ(Ids(*tokenizer, "A\xFF"), (std::vector<int32_t>{65, 255}));
  for (const std::string& text : DifficultTexts()) ExpectRoundTrip(*tokenizer, text);
}

TEST(ByteTokenizer, DecodeSkipsEndOfSequenceAndRefusesOthers) {
  const auto tokenizer = CreateByteTokenizer();
  EXPECT_EQ(*tokenizer->Decode({65, 256, 66}), "AB");
  EXPECT_FALSE(tokenizer->Decode({257}).ok());
  EXPECT_FALSE(tokenizer->Decode({-1}).ok());
}

TEST(SentencePieceTokenizer, DecodesWhatItEncoded) {
  const auto tokenizer = CreateSentencePieceTokenizer(TrainedModel());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->kind(), "sentencepiece");
  EXPECT_EQ((*tokenizer)->vocabulary(), 380);
  EXPECT_EQ((*tokenizer)->end_of_sequence(), 1);
  for (const std::string& text : DifficultTexts()) ExpectRoundTrip(**tokenizer, text);
}

TEST(SentencePieceTokenizer, UsesLongerPiecesThanBytes) {
  const auto tokenizer = CreateSentencePieceTokenizer(TrainedModel());
  ASSERT_TRUE(tokenizer.ok());
  const std::string text = Join(SampleLines(500));
  EXPECT_LT(Ids(**tokenizer, text).size() * 2, text.size());
}

TEST(SentencePieceTokenizer, SegmentsGiveTheSameIdsAsTheWholeText) {
  const auto tokenizer = CreateSentencePieceTokenizer(TrainedModel());
  ASSERT_TRUE(tokenizer.ok());
  const std::string text = Join(SampleLines(1000));
  std::vector<int32_t> ids;
  std::string_view rest = text;
  for (bool first = true; !rest.empty(); first = false) {
    const size_t size = FirstSegment(rest, true);
    ASSERT_TRUE((*tokenizer)->EncodeSegment(rest.substr(0, size), first, &ids).ok());
    rest.remove_prefix(size);
  }
  EXPECT_EQ(ids, Ids(**tokenizer, text));
}

TEST(SentencePieceTokenizer, ComesBackFromItsBytes) {
  const auto tokenizer = CreateSentencePieceTokenizer(TrainedModel());
  ASSERT_TRUE(tokenizer.ok());
  const auto again = CreateTokenizer((*tokenizer)->kind(), (*tokenizer)->serialized());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Ids(**again, "return value == 42"), Ids(**tokenizer, "return value == 42"));
}

TEST(SentencePieceTokenizer, TrainingIsDeterministic) {
  const absl::StatusOr<std::string> again = TrainSentencePiece(SampleLines(2000), 380);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(*again == TrainedModel());
}

// prefix_space.model puts a space before each text, as Llama's does. Made from this project's
// LICENSE with spm_train --model_type=bpe --vocab_size=330 --byte_fallback
// --normalization_rule_name=identity
// --remove_extra_whitespaces=false.
TEST(SentencePieceTokenizer, AddsAForeignModelsSpaceOnceForEachText) {
  const std::string bytes =
      TemporaryDirectory::Read(std::string(LONGSPAN_TEST_DATA) + "/prefix_space.model");
  const auto tokenizer = CreateSentencePieceTokenizer(bytes);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Ids(**tokenizer, "License").size() + 1, Ids(**tokenizer, " License").size());
  const std::string text = "License\n" + std::string(1500, 'a') + "\nLicense";
  ASSERT_LT(FirstSegment(text, true), text.size()) << "the text must have two segments";
  for (const std::string& difficult : DifficultTexts()) ExpectRoundTrip(**tokenizer, difficult);
  ExpectRoundTrip(**tokenizer, text);
}

TEST(SentencePieceTokenizer, RefusesWhatIsNoModel) {
  for (const std::string& bytes : {std::string(), std::string("not a model"), AllBytes()}) {
    const auto tokenizer = CreateSentencePieceTokenizer(bytes);
    ASSERT_FALSE(tokenizer.ok());
    EXPECT_NE(tokenizer.status().message().find("not a SentencePiece model"), std::string::npos)
        << tokenizer.status();
  }
  EXPECT_FALSE(CreateTokenizer("wordpiece", "").ok());
}

TEST(SentencePieceTokenizer, RefusesVocabulariesThatCannotBe) {
  EXPECT_FALSE(TrainSentencePiece(SampleLines(100), 200).ok());
  EXPECT_FALSE(TrainSentencePiece(SampleLines(100), 1 << 20).ok());
  EXPECT_FALSE(TrainSentencePiece({}, 380).ok());
  EXPECT_FALSE(TrainSentencePiece({"\xFF\xFE"}, 380).ok());
}

TEST(TextSegment, CutsDoNotDependOnBuffers) {
  std::mt19937 random(11);
  for (const std::string& text : DifficultTexts()) {
    std::vector<size_t> expected;
    std::string_view rest = text;
    while (!rest.empty()) {
      expected.push_back(FirstSegment(rest, true));
      ASSERT_GT(expected.back(), 0u);
      ASSERT_LE(expected.back(), kSegmentMaximumBytes);
      rest.remove_prefix(expected.back());
    }
    std::vector<size_t> found;
    std::string pending;
    size_t at = 0;
    while (at < text.size()) {
      const size_t part = std::min<size_t>(text.size() - at, 1 + random() % 3000);
      pending += text.substr(at, part);
      at += part;
      while (const size_t size = FirstSegment(pending, at == text.size())) {
        found.push_back(size);
        pending.erase(0, size);
      }
      ASSERT_LE(pending.size(), kSegmentMaximumBytes);
    }
    EXPECT_TRUE(pending.empty());
    EXPECT_EQ(found, expected);
  }
}

TEST(TextSegment, CutsAfterNewlinesBeforeSpacesBetweenCharacters) {
  const std::string line(1500, 'a');
  EXPECT_EQ(FirstSegment(line + "\n\n\nb", true), 1503u);
  EXPECT_EQ(FirstSegment(line + "\n", false), 0u);
  EXPECT_EQ(FirstSegment(line + " " + std::string(9000, 'b'), true), 1500u);
  std::string wide;
  while (wide.size() < 9000) wide += "漢";
  EXPECT_EQ(FirstSegment(wide, true), kSegmentMaximumBytes / 3 * 3);
}

TEST(TextSegment, KnowsUtf8) {
  for (const std::string good : {"a", "\xC2\x80", "\xEF\xBF\xBD", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(Utf8Character(good + "x"), good.size());
  }
  for (const std::string bad : {"\x80", "\xC1\x80", "\xE0\x80\x80", "\xED\xA0\x80",
                                "\xF4\x90\x80\x80", "\xF0\x8F\xBF\xBF", "\xC2", "\xFF"}) {
    EXPECT_EQ(Utf8Character(bad), 0u);
  }
}

}  // namespace
}  // namespace longspan
