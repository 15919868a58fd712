// A Reed-Solomon code over GF(2^8), polynomial 0x11d, through ISA-L: from `data` symbols of equal
// length come `parity` ones, and any `data` of all these give back the rest. Byte by byte, so parts
// of symbols are coded in any order and at any time.
#ifndef LONGSPAN_CHECKPOINT_ERASURE_CODE_H_
#define LONGSPAN_CHECKPOINT_ERASURE_CODE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

// Symbols of one stripe at most: elements of the field.
inline constexpr int kMostSymbols = 255;

// What data symbol `index` of `data` is multiplied with in the sum that parity symbol
// `parity_index` is: the inverse of (data + parity_index) xor index (a Cauchy matrix, every square
// part of which can be inverted).
uint8_t ParityFactor(int data, int parity_index, int index);

// Multiplication by one factor, made ready once.
class Multiplier {
 public:
  explicit Multiplier(uint8_t factor);
  // to[i] ^= factor * from[i]; the two do not overlap.
  void AddProduct(const char* from, char* to, int64_t bytes) const;

 private:
  uint8_t table_[32];
};

// `symbols`: `data` different ones of a stripe that are there, by index: data symbols first, then
// parity. The factors, in their order, whose sum of products is data symbol `wanted`.
// InvalidArgument for other symbols.
absl::StatusOr<std::vector<uint8_t>> RecoveryFactors(int data, const std::vector<int>& symbols,
                                                     int wanted);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_ERASURE_CODE_H_
