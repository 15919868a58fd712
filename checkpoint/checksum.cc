#include "checkpoint/checksum.h"

#include <isa-l.h>

#include <algorithm>
#include <cstdio>

namespace longspan {
namespace {

// Polynomials over GF(2) modulo the CRC's own, bit-reflected: the highest bit is the coefficient of
// x^0.
constexpr uint64_t kPolynomial = 0xc96c5795d7870f42;  // ECMA-182, reflected
constexpr uint64_t kOne = uint64_t{1} << 63;

uint64_t Multiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  for (uint64_t bit = kOne; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b & 1) ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

}  // namespace

uint32_t ExtendCrc32c(uint32_t crc, const void* data, int64_t bytes) {
  // ISA-L leaves out the usual inversion before and after, takes the length as an int, and its
  // buffer is not const.
  constexpr int64_t kMost = int64_t{1} << 30;
  auto* at = const_cast<unsigned char*>(static_cast<const unsigned char*>(data));
  crc = ~crc;
  while (bytes > 0) {
    const int64_t part = std::min(bytes, kMost);
    crc = crc32_iscsi(at, static_cast<int>(part), crc);
    at += part;
    bytes -= part;
  }
  return ~crc;
}

uint64_t ExtendCrc64(uint64_t crc, const void* data, int64_t bytes) {
  if (bytes == 0) return crc;
  return crc64_ecma_refl(crc, static_cast<const unsigned char*>(data),
                         static_cast<uint64_t>(bytes));
}

uint64_t CombineCrc64(uint64_t crc_a, uint64_t crc_b, int64_t bytes_b) {
  // A is followed by bytes_b bytes: its remainder is multiplied by x^(8 * bytes_b).
  uint64_t shift = kOne;
  uint64_t power = kOne >> 8;  // x^8
  for (uint64_t n = static_cast<uint64_t>(bytes_b); n != 0; n >>= 1) {
    if (n & 1) shift = Multiply(shift, power);
    power = Multiply(power, power);
  }
  return Multiply(crc_a, shift) ^ crc_b;
}

std::string Hex32(uint32_t value) {
  char text[9];
  std::snprintf(text, sizeof(text), "%08x", value);
  return text;
}

std::string Hex64(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace longspan
