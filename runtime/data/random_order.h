// Pseudo-random orders without tables, the same on every machine. Pure; thread-safe.
#ifndef LONGSPAN_RUNTIME_DATA_RANDOM_ORDER_H_
#define LONGSPAN_RUNTIME_DATA_RANDOM_ORDER_H_

#include <cstdint>

namespace longspan {

// 64 well-mixed bits of three numbers, whose order matters.
uint64_t HashOf(uint64_t a, uint64_t b, uint64_t c);

// A permutation of [0, size) that depends on (size, key) alone: a Feistel network over the next
// even power of two, walked along its cycle until it lands in range (at most four rounds on
// average; Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). Constant memory,
// whatever the size.
class Permutation {
 public:
  // size >= 1.
  Permutation(int64_t size, uint64_t key);
  // The element at `index`, both in [0, size).
  int64_t At(int64_t index) const;

 private:
  static constexpr int kRounds =
      12;  // with half of them orders of a dozen elements are visibly not uniform
  int64_t size_;
  int half_bits_;
  uint64_t round_keys_[kRounds];
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_RANDOM_ORDER_H_
