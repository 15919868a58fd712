// The Megatron reader against the pairs in megatron/, written by megatron_pairs.py, which shares no
// code with it.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "runtime/data/dataset.h"
#include "runtime/data/token_file.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

// The documents that the script writes, their sequences joined.
const std::vector<std::vector<int32_t>> kDocuments = {
    {1, 2, 3, 4, 5}, {6}, {}, {7, 8, 9, 10}, {11, 12}};

const std::string kRecorded = std::string(LONGSPAN_TEST_DATA) + "/megatron/";

void CopyPair(const TemporaryDirectory& directory, const std::string& type) {
  for (const std::string extension : {".bin", ".idx"}) {
    directory.Write("pair" + extension, TemporaryDirectory::Read(kRecorded + type + extension));
  }
}

// Overwrites `value` at byte `position`.
template <typename T>
void Patch(const std::string& path, size_t position, T value) {
  std::string bytes = TemporaryDirectory::Read(path);
  ASSERT_LE(position + sizeof(T), bytes.size());
  std::memcpy(bytes.data() + position, &value, sizeof(T));
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string MessageOf(const std::string& path) {
  const auto file = TokenFile::Open(path);
  return file.ok() ? "" : std::string(file.status().message());
}

void ExpectIn(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

// Positions in the .idx of six sequences and five documents.
constexpr size_t kVersionAt = 9, kTypeAt = 17, kSequencesAt = 18, kDocumentsAt = 26, kSizesAt = 34;
constexpr size_t kPointersAt = kSizesAt + 6 * 4, kIndexAt = kPointersAt + 6 * 8;

TEST(MegatronFile, ReadsDocumentsOfEveryType) {
  for (const std::string type : {"u8", "i8", "i16", "i32", "i64", "u16"}) {
    const TemporaryDirectory directory;
    CopyPair(directory, type);
    for (const std::string name : {"pair", "pair.bin", "pair.idx"}) {
      const auto file = TokenFile::Open(directory / name);
      ASSERT_TRUE(file.ok()) << file.status();
      ASSERT_EQ((*file)->documents(), 5);
      EXPECT_EQ((*file)->tokens(), 12);
      EXPECT_EQ((*file)->vocabulary(), 0);
      EXPECT_EQ((*file)->end_of_sequence(), -1);
      EXPECT_EQ((*file)->tokenizer_kind(), "none");
      for (int64_t d = 0; d < 5; ++d) {
        const int64_t begin = (*file)->document_begin(d), end = (*file)->document_begin(d + 1);
        std::vector<int32_t> ids(end - begin);
        ASSERT_TRUE((*file)->Read(begin, end, ids.data()).ok());
        EXPECT_EQ(ids, kDocuments[d]) << type << " document " << d;
      }
      EXPECT_EQ((*file)->bytes_read(), std::filesystem::file_size(directory / "pair.bin"));
    }
  }
}

TEST(MegatronFile, RecordedPairsAreWhatTheScriptWrites) {
  if (std::system("python3 -c '' 2> /dev/null") != 0) GTEST_SKIP() << "no python3 here";
  const TemporaryDirectory directory;
  const std::string command = "python3 '" + std::string(LONGSPAN_TEST_DATA) +
                              "/megatron_pairs.py' '" + directory.path() + "'";
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  EXPECT_EQ(directory.entries(), 12);
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    const std::string name = entry.path().filename().string();
    EXPECT_TRUE(TemporaryDirectory::Read(entry.path().string()) ==
                TemporaryDirectory::Read(kRecorded + name))
        << name;
  }
}

TEST(MegatronFile, ServesADataset) {
  const TemporaryDirectory directory;
  CopyPair(directory, "u16");
  DatasetOptions options;
  options.sources = {{directory / "pair"}};
  const auto dataset = Dataset::Open(options);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->sequences(), 3);
  EXPECT_EQ((*dataset)->dropped_documents(), 2);
  EXPECT_EQ((*dataset)->training_tokens(), 4 + 3 + 1);
  EXPECT_EQ((*dataset)->vocabulary(), 0);
  EXPECT_EQ((*dataset)->tokenizer_kind(), "none");
}

TEST(MegatronFile, IgnoresWhatFollowsTheDocumentIndex) {
  const TemporaryDirectory directory;
  CopyPair(directory, "u16");
  std::ofstream(directory / "pair.idx", std::ios::binary | std::ios::app) << std::string(6, '\1');
  EXPECT_EQ(MessageOf(directory / "pair"), "");
}

TEST(MegatronFile, NamesWhatIsWrong) {
  const auto broken = [](const auto& breaking) {
    const TemporaryDirectory directory;
    CopyPair(directory, "u16");
    breaking(directory);
    return MessageOf(directory / "pair");
  };
  const auto patched = [&](size_t position, auto value) {
    return broken([&](const auto& d) { Patch(d / "pair.idx", position, value); });
  };
  ExpectIn("does not begin with MMIDIDX", patched(0, 'X'));
  ExpectIn("version 2", patched(kVersionAt, uint64_t{2}));
  ExpectIn("type 7", patched(kTypeAt, uint8_t{7}));
  ExpectIn("do not fit", patched(kSequencesAt, uint64_t{7}));
  ExpectIn("do not fit", patched(kSequencesAt, ~uint64_t{0}));
  ExpectIn("do not fit", patched(kDocumentsAt, ~uint64_t{0}));
  ExpectIn("do not fit", patched(kDocumentsAt, uint64_t{0}));
  ExpectIn("sequence 0", patched(kSizesAt, int32_t{-1}));
  ExpectIn("without gaps", patched(kPointersAt + 8, int64_t{8}));
  ExpectIn("document index", patched(kIndexAt, int64_t{1}));
  ExpectIn("document index", patched(kIndexAt + 8, int64_t{100}));
  ExpectIn("document index", patched(kIndexAt + 5 * 8, int64_t{5}));
  ExpectIn("bytes expected", patched(kSizesAt + 5 * 4, int32_t{3}));
  ExpectIn("truncated: 24 bytes expected",
           broken([](const auto& d) { std::filesystem::resize_file(d / "pair.bin", 20); }));
  ExpectIn("truncated",
           broken([](const auto& d) { std::filesystem::resize_file(d / "pair.idx", 60); }));
  ExpectIn("truncated",
           broken([](const auto& d) { std::filesystem::resize_file(d / "pair.idx", 20); }));
  ExpectIn("pair.bin", broken([](const auto& d) { std::filesystem::remove(d / "pair.bin"); }));
}

TEST(MegatronFile, RefusesNegativeTokens) {
  const TemporaryDirectory directory;
  CopyPair(directory, "i32");
  Patch(directory / "pair.bin", 8, int32_t{-5});
  const auto file = TokenFile::Open(directory / "pair");
  ASSERT_TRUE(file.ok());
  std::vector<int32_t> ids(12);
  EXPECT_EQ((*file)->Read(0, 12, ids.data()).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace longspan
