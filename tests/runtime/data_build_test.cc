#include "runtime/data/build.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "runtime/data/length_summary.h"
#include "runtime/data/token_file.h"
#include "runtime/data/tokenizer.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

void ExpectIn(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

class BuildTest : public ::testing::Test {
 protected:
  BuildReport Build() {
    options_.output = output_ / "tokens.h5";
    const auto report = BuildTokenFile(options_, nullptr);
    EXPECT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(output_.entries(), 1) << "temporary files were left behind";
    return report.ok() ? *report : BuildReport();
  }

  // The texts of the documents in the file, each of which must end with end of sequence.
  std::vector<std::string> Documents() {
    const auto file = TokenFile::Open(options_.output);
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return {};
    const auto tokenizer = CreateTokenizer((*file)->tokenizer_kind(), *(*file)->tokenizer());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ((*file)->vocabulary(), (*tokenizer)->vocabulary());
    EXPECT_EQ((*file)->end_of_sequence(), (*tokenizer)->end_of_sequence());
    std::vector<std::string> documents;
    for (int64_t d = 0; d < (*file)->documents(); ++d) {
      const int64_t begin = (*file)->document_begin(d), end = (*file)->document_begin(d + 1);
      std::vector<int32_t> ids(end - begin);
      EXPECT_TRUE((*file)->Read(begin, end, ids.data()).ok());
      EXPECT_EQ(ids.back(), (*file)->end_of_sequence());
      EXPECT_EQ(std::count(ids.begin(), ids.end(), ids.back()), 1);
      documents.push_back(*(*tokenizer)->Decode(ids));
    }
    return documents;
  }

  // Fails, and leaves nothing behind.
  std::string ErrorMessage() {
    if (options_.output.empty()) options_.output = output_ / "tokens.h5";
    const auto report = BuildTokenFile(options_, nullptr);
    EXPECT_EQ(output_.entries(), 0);
    return report.ok() ? "" : std::string(report.status().message());
  }

  const TemporaryDirectory input_, output_;
  BuildOptions options_;
};

using Texts = std::vector<std::string>;

TEST_F(BuildTest, TakesFilesOfADirectoryInOrder) {
  input_.Write("b/2.txt", "second");
  input_.Write("b/1.txt", "first\n");
  input_.Write("c.txt", "third");
  input_.Write("a.bin", std::string("\x7f"
                                    "ELF\0\1",
                                    6));
  input_.Write("empty.txt", "");
  input_.Write(".hidden", "no");
  input_.Write(".git/config", "no");
  std::filesystem::create_directory_symlink(input_.path(), input_ / "b/loop");
  std::filesystem::create_symlink(input_ / "c.txt", input_ / "z_link.txt");
  options_.text.inputs = {input_.path()};
  const BuildReport report = Build();
  EXPECT_EQ(Documents(), (Texts{"first\n", "second", "third", "third"}));
  EXPECT_EQ(report.text.documents, 4);
  EXPECT_EQ(report.text.files, 6);
  EXPECT_EQ(report.text.skipped_binary, 1);
  EXPECT_EQ(report.text.skipped_empty, 1);
  EXPECT_EQ(report.text.bytes, 6 + 6 + 5 + 5);
  EXPECT_EQ(report.tokens, 6 + 6 + 5 + 5 + 4);
  EXPECT_EQ(report.vocabulary, 257);
  EXPECT_EQ(report.tokenizer_kind, "byte");
}

TEST_F(BuildTest, PicksExtensionsInDirectoriesOnly) {
  input_.Write("d/a.c", "c");
  input_.Write("d/a.h", "h");
  input_.Write("d/a.txt", "txt");
  options_.text.inputs = {input_ / "d", input_.Write("named.txt", "named")};
  options_.text.extensions = {".c", ".h"};
  Build();
  EXPECT_EQ(Documents(), (Texts{"c", "h", "named"}));
}

TEST_F(BuildTest, SplitsTextsAtLinesAndParagraphs) {
  options_.text.inputs = {input_.Write("a.txt", "\n\none\ntwo\n\n\n\nthree\n\nfour\n")};
  options_.text.split = TextOptions::Split::kLine;
  Build();
  EXPECT_EQ(Documents(), (Texts{"one", "two", "three", "four"}));
  options_.text.split = TextOptions::Split::kParagraph;
  Build();
  EXPECT_EQ(Documents(), (Texts{"one\ntwo", "three", "four"}));
}

TEST_F(BuildTest, ReadsJsonLines) {
  options_.text.inputs = {input_.Write(
      "a.jsonl",
      "{\"id\": 1, \"text\": \"a\\nb \\u00fc\"}\n\n{\"text\": \"\"}\n  {\"text\": \"last\"}")};
  const BuildReport report = Build();
  EXPECT_EQ(Documents(), (Texts{"a\nb ü", "last"}));
  EXPECT_EQ(report.text.skipped_empty, 1);
  options_.text.field = "body";
  options_.text.inputs = {input_.Write("b.ndjson", "{\"body\": \"x\"}\r\n")};
  Build();
  EXPECT_EQ(Documents(), (Texts{"x"}));
}

TEST_F(BuildTest, NamesTheLineOfBadJson) {
  const auto message = [&](const std::string& line) {
    options_.text.inputs = {input_.Write("a.jsonl", "{\"text\": \"x\"}\n" + line + "\n")};
    const std::string text = ErrorMessage();
    ExpectIn("a.jsonl:2: ", text);
    return text;
  };
  ExpectIn("not valid JSON", message("{\"text\": "));
  ExpectIn("not valid JSON", message("{\"text\": \"\xFF\"}"));
  ExpectIn("not a JSON object", message("[1]"));
  ExpectIn("no field \"text\"", message("{\"body\": \"x\"}"));
  ExpectIn("not a string", message("{\"text\": 1}"));
}

TEST_F(BuildTest, StopsAtItsLimits) {
  for (int i = 0; i < 5; ++i) input_.Write(std::to_string(i), "0123456789");
  options_.text.inputs = {input_.path()};
  options_.text.maximum_documents = 3;
  EXPECT_EQ(Build().text.documents, 3);
  options_.text.maximum_documents = 0;
  options_.text.maximum_bytes = 11;
  EXPECT_EQ(Build().text.documents, 2);
  options_.text.split = TextOptions::Split::kLine;
  options_.text.inputs = {input_.Write("lines", "a\nb\nc\nd\n")};
  options_.text.maximum_bytes = 0;
  options_.text.maximum_documents = 2;
  Build();
  EXPECT_EQ(Documents(), (Texts{"a", "b"}));
}

std::string LongText(int bytes, int seed) {
  std::mt19937 random(seed);
  const std::vector<std::string> words = {"\n",    " ", "  ", "\t",    "int",
                                          "größe", "x", "漢", "return"};
  std::string text;
  while (static_cast<int>(text.size()) < bytes) text += words[random() % words.size()];
  return text;
}

// Longer than every buffer on the way.
TEST_F(BuildTest, StreamsLongDocuments) {
  const std::string text = LongText(600000, 1), line = LongText(300000, 2);
  std::string escaped;
  for (const char c : line) {
    if (c == '\n') {
      escaped += "\\n";
    } else if (c == '\t') {
      escaped += "\\t";
    } else {
      escaped += c;
    }
  }
  options_.text.inputs = {input_.Write("a.txt", text),
                          input_.Write("b.jsonl", "{\"text\": \"" + escaped + "\"}\n")};
  Build();
  EXPECT_TRUE(Documents() == (Texts{text, line}));

  options_.train_vocabulary = 300;
  options_.train_sample_bytes = 20000;
  const BuildReport report = Build();
  EXPECT_EQ(report.tokenizer_kind, "sentencepiece");
  EXPECT_EQ(report.vocabulary, 300);
  EXPECT_TRUE(Documents() == (Texts{text, line}));

  // Streamed tokens are those of the whole text.
  const auto file = TokenFile::Open(options_.output);
  ASSERT_TRUE(file.ok());
  const auto tokenizer = CreateTokenizer("sentencepiece", *(*file)->tokenizer());
  std::vector<int32_t> expected, found((*file)->document_begin(1));
  ASSERT_TRUE((*tokenizer)->Encode(text, &expected).ok());
  expected.push_back((*tokenizer)->end_of_sequence());
  ASSERT_TRUE((*file)->Read(0, (*file)->document_begin(1), found.data()).ok());
  EXPECT_TRUE(found == expected);
}

TEST_F(BuildTest, TakesATrainedModel) {
  options_.text.inputs = {input_.Write("a.txt", LongText(20000, 3))};
  options_.tokenizer = std::string(LONGSPAN_TEST_DATA) + "/prefix_space.model";
  EXPECT_EQ(Build().vocabulary, 330);
  EXPECT_TRUE(Documents() == Texts{LongText(20000, 3)});

  // The data set carries the model, and lends it to the next one.
  const std::string first = input_ / "first.h5";
  std::filesystem::copy(options_.output, first);
  options_.tokenizer = first;
  EXPECT_EQ(Build().vocabulary, 330);
  EXPECT_TRUE(TemporaryDirectory::Read(options_.output) == TemporaryDirectory::Read(first));
}

// Fields of protocol buffer messages: a string of bytes, and a number below 128.
std::string Field(int number, const std::string& bytes) {
  std::string field;
  for (uint64_t value : {uint64_t(number) << 3 | 2, uint64_t{bytes.size()}}) {
    for (; value >= 128; value >>= 7) field.push_back(static_cast<char>(value | 128));
    field.push_back(static_cast<char>(value));
  }
  return field + bytes;
}
std::string Field(int number, int value) {
  // The key in two bytes, also where one would do.
  return {static_cast<char>((number << 3 & 0x7F) | 0x80), static_cast<char>(number >> 4),
          static_cast<char>(value)};
}

// A SentencePiece model whose last piece, "zz", has id `last`; most of its other pieces are never
// used.
std::string LargeModel(int last) {
  std::string pieces;
  const auto add = [&](const std::string& piece, int type) {
    // Every piece scores 0 but "zz".
    std::string score(1, '\x15');
    const float value = piece == "zz" ? 1.0f : 0.0f;
    score.append(reinterpret_cast<const char*>(&value), 4);
    pieces += Field(1, Field(1, piece) + score + Field(3, type));
  };
  constexpr int kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;
  add("<unk>", kUnknown);
  add("</s>", kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    add(name, kByte);
  }
  add("z", kNormal);
  for (int id = 259; id < last; ++id) add("unused" + std::to_string(id), kNormal);
  add("zz", kNormal);
  constexpr int kBytePair = 2;
  const std::string trainer = Field(3, kBytePair) + Field(35, 1) + Field(40, 0) + Field(42, 1);
  const std::string normalizer = Field(1, std::string("identity")) + Field(3, 0) + Field(4, 0);
  return pieces + Field(2, trainer) + Field(3, normalizer);
}

TEST_F(BuildTest, StoresLargeVocabulariesInFourBytes) {
  const std::string text = "zz top zzz";
  options_.text.inputs = {input_.Write("a.txt", text)};
  for (const int last : {65535, 65536}) {
    options_.tokenizer = input_.Write("large.model", LargeModel(last));
    EXPECT_EQ(Build().vocabulary, last + 1);
    EXPECT_TRUE(Documents() == Texts{text});
    const auto file = TokenFile::Open(options_.output);
    ASSERT_TRUE(file.ok());
    std::vector<int32_t> ids((*file)->tokens());
    ASSERT_TRUE((*file)->Read(0, (*file)->tokens(), ids.data()).ok());
    EXPECT_EQ((*file)->bytes_read(), (*file)->tokens() * (last < 65536 ? 2 : 4));
    EXPECT_EQ(ids[0], last);
  }
}

TEST_F(BuildTest, ReplacesTheOutputOnlyWhenComplete) {
  options_.text.inputs = {input_.Write("a.txt", "one")};
  Build();
  options_.text.inputs.push_back(input_.Write("bad.jsonl", "{"));
  ASSERT_FALSE(BuildTokenFile(options_, nullptr).ok());
  EXPECT_EQ(output_.entries(), 1);
  EXPECT_EQ(Documents(), Texts{"one"});
  options_.text.inputs = {input_.Write("a.txt", "two")};
  Build();
  EXPECT_EQ(Documents(), Texts{"two"});
}

TEST_F(BuildTest, TheOutputMayLieAmongTheInputs) {
  const TemporaryDirectory both;
  both.Write("a.txt", "one");
  options_.text.inputs = {both.path()};
  options_.output = both / "tokens.h5";
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(BuildTokenFile(options_, nullptr).ok());
    EXPECT_EQ(Documents(), Texts{"one"});
  }
}

TEST_F(BuildTest, NamesWhatIsWrong) {
  ExpectIn("no inputs", ErrorMessage());
  options_.text.inputs = {input_ / "missing"};
  ExpectIn(input_ / "missing", ErrorMessage());
  options_.text.inputs = {input_.Write("empty.txt", "")};
  ExpectIn("no text in", ErrorMessage());
  options_.text.inputs = {"/dev/null"};
  ExpectIn("neither a file nor a directory", ErrorMessage());
  options_.text.inputs = {input_.Write("a.txt", "text")};
  options_.tokenizer = input_ / "missing.model";
  ExpectIn("missing.model", ErrorMessage());
  options_.tokenizer = input_.path();
  ExpectIn("cannot read tokenizer", ErrorMessage());
  options_.tokenizer = input_.Write("bad.model", "no model");
  ExpectIn("bad.model: not a SentencePiece model", ErrorMessage());
  options_.train_vocabulary = 300;
  ExpectIn("exclude each other", ErrorMessage());
  options_.tokenizer = "byte";
  ExpectIn("cannot train", ErrorMessage());
  options_.train_vocabulary = 0;
  options_.output = output_ / "missing/tokens.h5";
  ExpectIn("cannot write " + options_.output, ErrorMessage());
  options_.output = output_.path();
  ExpectIn("is not a file", ErrorMessage());
}

TEST_F(BuildTest, CountsWhatItMayNotRead) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  input_.Write("a.txt", "one");
  ::chmod(input_.Write("b.txt", "two").c_str(), 0);
  options_.text.inputs = {input_.path()};
  const BuildReport report = Build();
  EXPECT_EQ(Documents(), Texts{"one"});
  EXPECT_EQ(report.text.unreadable, 1);
  ExpectIn("b.txt", report.text.first_unreadable);
  options_.text.inputs = {input_ / "b.txt"};
  EXPECT_FALSE(BuildTokenFile(options_, nullptr).ok());
}

TEST_F(BuildTest, ReportsProgress) {
  options_.text.inputs = {input_.Write("a.txt", LongText(3 << 19, 4))};
  options_.train_vocabulary = 300;
  options_.train_sample_bytes = 20000;
  options_.output = output_ / "tokens.h5";
  std::vector<std::string> phases;
  int64_t last = 0;
  const auto report = BuildTokenFile(options_, [&](const BuildProgress& progress) {
    if (phases.empty() || phases.back() != progress.phase) {
      phases.push_back(progress.phase);
      last = 0;
    }
    EXPECT_GE(progress.done, last);
    EXPECT_TRUE(progress.total == 0 || progress.done <= progress.total);
    last = progress.done;
  });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(phases, (std::vector<std::string>{"sample", "train", "tokenize", "write"}));
}

TEST(LengthSummary, CountsByPowersOfTwo) {
  const LengthSummary summary = SummarizeLengths({8, 1, 2, 3, 7, 0, 100, 2});
  EXPECT_EQ(summary.documents, 8);
  EXPECT_EQ(summary.tokens, 123);
  EXPECT_EQ(summary.minimum, 0);
  EXPECT_EQ(summary.maximum, 100);
  EXPECT_DOUBLE_EQ(summary.mean, 123.0 / 8);
  // Sorted: 0 1 2 2 3 7 8 100.
  EXPECT_EQ(summary.quantiles, (std::array<int64_t, 5>{1, 2, 7, 100, 100}));
  ASSERT_EQ(summary.bins.size(), 8u);
  const int64_t documents[] = {1, 1, 3, 1, 1, 0, 0, 1};
  int64_t begin = 0, end = 1;
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(summary.bins[i].begin, begin);
    EXPECT_EQ(summary.bins[i].end, end);
    EXPECT_EQ(summary.bins[i].documents, documents[i]) << i;
    begin = end;
    end *= 2;
  }
  EXPECT_EQ(summary.bins[2].tokens, 7);
  EXPECT_EQ(SummarizeLengths({5, 6}).bins[0].begin, 4);
  EXPECT_EQ(SummarizeLengths({5, 6}).bins.size(), 1u);
  EXPECT_EQ(SummarizeLengths({}).documents, 0);
}

}  // namespace
}  // namespace longspan
