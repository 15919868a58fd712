// Content sums: against the definition, in any parts, and what they tell apart.
#include "kernels/device/content_sum.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <vector>

namespace longspan {
namespace {

uint64_t SplitMix(uint64_t n) {
  uint64_t z = (n + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Word by word.
uint64_t Definition(const std::vector<uint32_t>& words, int64_t position) {
  uint64_t sum = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    const uint64_t at = static_cast<uint64_t>(position) + i;
    const uint64_t key = (SplitMix(1024 + at / 1024) | 1) * ((SplitMix(at % 1024) >> 32) | 1);
    sum += words[i] * key;
  }
  return sum;
}

std::vector<uint32_t> RandomWords(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> words(count);
  for (uint32_t& word : words) word = random();
  return words;
}

uint64_t SumOf(const std::vector<uint32_t>& words, int64_t position = 0) {
  return ContentSum(words.data(), static_cast<int64_t>(words.size()), position);
}

TEST(ContentSumTest, AgreesWithTheDefinition) {
  for (const size_t count : {0, 1, 3, 7, 8, 9, 31, 1000, 1024, 1025, 5000}) {
    const std::vector<uint32_t> words = RandomWords(count, static_cast<uint32_t>(count));
    for (const int64_t position : {int64_t{0}, int64_t{5}, int64_t{1023}, int64_t{1} << 40}) {
      EXPECT_EQ(SumOf(words, position), Definition(words, position)) << count << " " << position;
    }
  }
}

TEST(ContentSumTest, PartsAddUpWhereverTheyLie) {
  const std::vector<uint32_t> words = RandomWords(5000, 1);
  for (const int64_t cut : {0, 1, 17, 1024, 2500, 4999, 5000}) {
    std::vector<char> elsewhere(4 * (5000 - cut) + 1);  // not aligned
    if (cut < 5000) std::memcpy(elsewhere.data() + 1, words.data() + cut, elsewhere.size() - 1);
    EXPECT_EQ(
        ContentSum(elsewhere.data() + 1, 5000 - cut, 7 + cut) + ContentSum(words.data(), cut, 7),
        SumOf(words, 7))
        << cut;
  }
}

TEST(ContentSumTest, TellsChangesApart) {
  const std::vector<uint32_t> words = RandomWords(4096, 2);
  std::set<uint64_t> sums = {SumOf(words)};
  size_t variants = 1;
  const auto expect_new = [&](const std::vector<uint32_t>& other, const char* what) {
    sums.insert(SumOf(other));
    EXPECT_EQ(sums.size(), ++variants) << what;
  };
  for (const size_t at : {0, 1, 1023, 1024, 4095}) {
    for (const int bit : {0, 1, 15, 31}) {
      std::vector<uint32_t> other = words;
      other[at] ^= uint32_t{1} << bit;
      expect_new(other, "one bit");
    }
  }
  // A whole span, and a single word, in another's place; newer words from some place on.
  for (const size_t length : {1, 1024}) {
    std::vector<uint32_t> other = words;
    std::swap_ranges(other.begin(), other.begin() + length, other.begin() + 2048);
    expect_new(other, "exchanged");
  }
  const std::vector<uint32_t> newer = RandomWords(4096, 3);
  for (const size_t torn : {0, 1, 512, 1024, 2048, 4095}) {
    std::vector<uint32_t> other = words;
    std::copy(newer.begin() + torn, newer.end(), other.begin() + torn);
    expect_new(other, "torn");
  }
  // What is set to zero, and what is added to everything.
  for (const size_t begin : {0, 1024, 3000}) {
    std::vector<uint32_t> other = words;
    std::fill(other.begin() + begin, other.begin() + begin + 64, 0);
    expect_new(other, "cleared");
  }
  std::vector<uint32_t> other = words;
  for (uint32_t& word : other) word += 1;
  expect_new(other, "one more in each");
  EXPECT_NE(SumOf(words, 0), SumOf(words, 1)) << "moved by a word";
  EXPECT_NE(SumOf(words, 0), SumOf(words, 1024)) << "moved by a span";
}

}  // namespace
}  // namespace longspan
