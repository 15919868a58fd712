#include "runtime/data/token_file.h"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "runtime/data/build.h"
#include "runtime/data/tokenizer.h"
#include "temporary_directory.h"
#include "token_data.h"

namespace longspan {
namespace {

std::string MessageOf(const std::string& path) {
  const auto file = TokenFile::Open(path);
  return file.ok() ? "" : std::string(file.status().message());
}

void ExpectIn(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(TokenFile, ReadsEachLayoutAlike) {
  const TemporaryDirectory directory;
  TokenData data = RandomTokenData(50, 40, 300, 5);
  for (const bool chunked : {false, true}) {
    for (const int width : {2, 4}) {
      for (const bool big_endian : {false, true}) {
        data.chunked = chunked;
        data.width = width;
        data.big_endian = big_endian;
        const std::string path = directory / "tokens.h5";
        WriteTokenData(path, data);
        const auto file = TokenFile::Open(path);
        ASSERT_TRUE(file.ok()) << file.status();
        EXPECT_EQ((*file)->path(), path);
        EXPECT_EQ((*file)->documents(), 50);
        EXPECT_EQ((*file)->tokens(), static_cast<int64_t>(data.tokens.size()));
        for (int64_t d = 0; d <= 50; ++d) {
          EXPECT_EQ((*file)->document_begin(d), static_cast<int64_t>(data.offsets[d]));
        }
        EXPECT_EQ((*file)->vocabulary(), 300);
        EXPECT_EQ((*file)->end_of_sequence(), 299);
        EXPECT_EQ((*file)->tokenizer_kind(), "none");
        const int64_t n = (*file)->tokens();
        std::vector<int32_t> all(n);
        ASSERT_TRUE((*file)->Read(0, n, all.data()).ok());
        EXPECT_EQ(all, data.tokens);
        EXPECT_EQ((*file)->bytes_read(), n * width);
        std::vector<int32_t> part(3);
        ASSERT_TRUE((*file)->Read(n - 3, n, part.data()).ok());
        EXPECT_EQ(part, std::vector<int32_t>(data.tokens.end() - 3, data.tokens.end()));
        EXPECT_EQ((*file)->bytes_read(), (n + 3) * width);
        ASSERT_TRUE((*file)->Read(5, 5, nullptr).ok());
        EXPECT_FALSE((*file)->Read(0, n + 1, all.data()).ok());
        EXPECT_FALSE((*file)->Read(-1, 1, all.data()).ok());
      }
    }
  }
}

TEST(TokenFile, ReadsFromSeveralThreads) {
  const TemporaryDirectory directory;
  TokenData data = RandomTokenData(100, 200, 1000, 6);
  for (const bool chunked : {false, true}) {
    data.chunked = chunked;
    WriteTokenData(directory / "tokens.h5", data);
    const auto file = TokenFile::Open(directory / "tokens.h5");
    ASSERT_TRUE(file.ok()) << file.status();
    std::vector<int> wrong(4);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int64_t begin = t; begin + 50 < (*file)->tokens(); begin += 97) {
          std::vector<int32_t> out(50);
          const bool ok = (*file)->Read(begin, begin + 50, out.data()).ok();
          wrong[t] += !ok || !std::equal(out.begin(), out.end(), data.tokens.begin() + begin);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, std::vector<int>(4));
  }
}

TEST(TokenFile, NamesWhatIsMissing) {
  const TemporaryDirectory directory;
  const std::string missing = MessageOf(directory / "none.h5");
  ExpectIn(directory / "none.h5", missing);
  ExpectIn("longspan data build", missing);
  EXPECT_EQ(TokenFile::Open(directory / "none.h5").status().code(), absl::StatusCode::kNotFound);
  ExpectIn("not a file", MessageOf(directory.path()));
  ExpectIn("not an HDF5 file", MessageOf(directory.Write("text.h5", "just text, long enough")));
  ExpectIn("not an HDF5 file", MessageOf(directory.Write("empty.h5", "")));
}

TEST(TokenFile, KnowsTruncatedFiles) {
  const TemporaryDirectory directory;
  for (const bool latest : {false, true}) {
    TokenData data = RandomTokenData(50, 400, 300, 7);
    data.latest_format = latest;
    const std::string path = directory / "tokens.h5";
    WriteTokenData(path, data);
    const auto size = std::filesystem::file_size(path);
    for (const double share : {0.999, 0.5, 0.1}) {
      const auto kept = static_cast<uintmax_t>(share * static_cast<double>(size));
      WriteTokenData(path, data);
      std::filesystem::resize_file(path, kept);
      const std::string message = MessageOf(path);
      ExpectIn(path, message);
      ExpectIn("truncated", message);
      ExpectIn(std::to_string(size) + " bytes expected", message);
      ExpectIn(std::to_string(kept) + " found", message);
    }
  }
}

TEST(TokenFile, FailsReadsOfAFileThatShrankWhileOpen) {
  const TemporaryDirectory directory;
  const TokenData data = RandomTokenData(50, 400, 300, 7);
  WriteTokenData(directory / "tokens.h5", data);
  const auto file = TokenFile::Open(directory / "tokens.h5");
  ASSERT_TRUE(file.ok());
  std::filesystem::resize_file(directory / "tokens.h5", 4096);
  std::vector<int32_t> out((*file)->tokens());
  const absl::Status status = (*file)->Read(0, (*file)->tokens(), out.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
}

TEST(TokenFile, RefusesOtherFormatsAndNewerVersions) {
  const TemporaryDirectory directory;
  TokenData data = RandomTokenData(5, 10, 300, 8);
  data.version = 2;
  WriteTokenData(directory / "a.h5", data);
  ExpectIn("version 2", MessageOf(directory / "a.h5"));
  data.version = 1;
  data.format = "longspan-checkpoint";
  WriteTokenData(directory / "b.h5", data);
  ExpectIn("not a token data set", MessageOf(directory / "b.h5"));
}

TEST(TokenFile, RefusesOffsetsThatDoNotFit) {
  const TemporaryDirectory directory;
  TokenData data = RandomTokenData(5, 10, 300, 9);
  data.offsets.back() += 1;
  WriteTokenData(directory / "a.h5", data);
  ExpectIn("/offsets ends at", MessageOf(directory / "a.h5"));
  data.offsets.back() -= 1;
  std::swap(data.offsets[1], data.offsets[2]);
  WriteTokenData(directory / "b.h5", data);
  ExpectIn("does not rise", MessageOf(directory / "b.h5"));
}

TEST(TokenFile, RefusesTokensOutsideTheVocabulary) {
  const TemporaryDirectory directory;
  TokenData data = RandomTokenData(5, 10, 300, 10);
  data.width = 4;
  for (const int32_t bad : {300, -1}) {  // -1: stored as 2^32 - 1
    data.tokens[7] = bad;
    for (const bool chunked : {false, true}) {
      data.chunked = chunked;
      WriteTokenData(directory / "a.h5", data);
      const auto file = TokenFile::Open(directory / "a.h5");
      ASSERT_TRUE(file.ok());
      std::vector<int32_t> out(10);
      EXPECT_TRUE((*file)->Read(0, 7, out.data()).ok());
      const absl::Status status = (*file)->Read(0, 10, out.data());
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      ExpectIn("token 7 of", std::string(status.message()));
    }
  }
}

// A file of version 1 that stays as it was written, by `longspan data build` from three documents.
TEST(TokenFile, ReadsTheGoldenFileOfVersion1) {
  const auto file = TokenFile::Open(std::string(LONGSPAN_TEST_DATA) + "/../golden/tokens-v1.h5");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->documents(), 3);
  EXPECT_EQ((*file)->vocabulary(), 257);
  EXPECT_EQ((*file)->end_of_sequence(), 256);
  ASSERT_EQ((*file)->tokenizer_kind(), "byte");
  std::vector<int32_t> ids((*file)->tokens());
  ASSERT_TRUE((*file)->Read(0, (*file)->tokens(), ids.data()).ok());
  EXPECT_EQ(*CreateByteTokenizer()->Decode(ids), "one\ntwo words\nthree");
  EXPECT_EQ((*file)->document_begin(1), 5);
  EXPECT_EQ((*file)->document_begin(2), 16);
}

}  // namespace
}  // namespace longspan
