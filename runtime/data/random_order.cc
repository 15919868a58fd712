#include "runtime/data/random_order.h"

#include <bit>

#include "kernels/device/check.h"

namespace longspan {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t HashOf(uint64_t a, uint64_t b, uint64_t c) { return Mix(Mix(Mix(a) ^ b) ^ c); }

Permutation::Permutation(int64_t size, uint64_t key) : size_(size) {
  LONGSPAN_CHECK(size >= 1, "a permutation needs at least one element");
  const int bits = std::bit_width(static_cast<uint64_t>(size - 1));
  half_bits_ = bits < 4 ? 2 : (bits + 1) / 2;
  for (int round = 0; round < kRounds; ++round) round_keys_[round] = HashOf(key, round, size);
}

int64_t Permutation::At(int64_t index) const {
  LONGSPAN_CHECK(index >= 0 && index < size_, "index outside the permutation");
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t x = static_cast<uint64_t>(index);
  do {
    uint64_t left = x >> half_bits_, right = x & mask;
    for (const uint64_t round_key : round_keys_) {
      const uint64_t mixed = left ^ (Mix(right ^ round_key) & mask);
      left = right;
      right = mixed;
    }
    x = left << half_bits_ | right;
  } while (x >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(x);
}

}  // namespace longspan
