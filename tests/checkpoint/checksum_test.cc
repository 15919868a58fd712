#include "checkpoint/checksum.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace longspan {
namespace {

// One bit at a time, from the definition.
uint64_t SlowCrc64(const std::string& text) {
  uint64_t crc = ~uint64_t{0};
  for (char c : text) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) ? (crc >> 1) ^ 0xc96c5795d7870f42 : crc >> 1;
  }
  return ~crc;
}

uint32_t SlowCrc32c(const std::string& text) {
  uint32_t crc = ~uint32_t{0};
  for (char c : text) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

std::string RandomBytes(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

TEST(ChecksumTest, PublishedValues) {
  EXPECT_EQ(Crc32c("123456789", 9), 0xe3069283u);
  EXPECT_EQ(ExtendCrc64(0, "123456789", 9), 0x995dc9bbdf1939fau);
  EXPECT_EQ(Crc32c("", 0), 0u);
  EXPECT_EQ(ExtendCrc64(0, "", 0), 0u);
}

TEST(ChecksumTest, AgreesWithTheDefinitionAtAllSizes) {
  for (size_t bytes : {1, 2, 7, 8, 15, 16, 63, 64, 65, 127, 128, 255, 1000, 4097}) {
    const std::string text = RandomBytes(bytes, bytes);
    EXPECT_EQ(Crc32c(text.data(), static_cast<int64_t>(bytes)), SlowCrc32c(text)) << bytes;
    EXPECT_EQ(ExtendCrc64(0, text.data(), static_cast<int64_t>(bytes)), SlowCrc64(text)) << bytes;
  }
}

TEST(ChecksumTest, PartsCombineToTheWhole) {
  const std::string text = RandomBytes(5000, 1);
  const uint64_t whole = ExtendCrc64(0, text.data(), 5000);
  for (int64_t cut : {0, 1, 3, 8, 1000, 2500, 4999, 5000}) {
    const uint64_t a = ExtendCrc64(0, text.data(), cut);
    const uint64_t b = ExtendCrc64(0, text.data() + cut, 5000 - cut);
    EXPECT_EQ(CombineCrc64(a, b, 5000 - cut), whole) << cut;
    EXPECT_EQ(ExtendCrc64(a, text.data() + cut, 5000 - cut), whole) << cut;
    EXPECT_EQ(ExtendCrc32c(Crc32c(text.data(), cut), text.data() + cut, 5000 - cut),
              Crc32c(text.data(), 5000))
        << cut;
  }
}

TEST(ChecksumTest, HexKeepsLeadingZeros) {
  EXPECT_EQ(Hex32(0xab), "000000ab");
  EXPECT_EQ(Hex64(0xab), "00000000000000ab");
}

}  // namespace
}  // namespace longspan
