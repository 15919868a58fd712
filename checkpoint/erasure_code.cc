#include "checkpoint/erasure_code.h"

#include <isa-l/erasure_code.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"

namespace longspan {

uint8_t ParityFactor(int data, int parity_index, int index) {
  return gf_inv(static_cast<unsigned char>((data + parity_index) ^ index));
}

Multiplier::Multiplier(uint8_t factor) { ec_init_tables(1, 1, &factor, table_); }

void Multiplier::AddProduct(const char* from, char* to, int64_t bytes) const {
  // The library takes lengths as int, and what it only reads as if it wrote to it.
  constexpr int64_t kMost = int64_t{1} << 30;
  auto* tables = const_cast<unsigned char*>(table_);
  for (int64_t at = 0; at < bytes; at += kMost) {
    auto* source = reinterpret_cast<unsigned char*>(const_cast<char*>(from + at));
    auto* target = reinterpret_cast<unsigned char*>(to + at);
    ec_encode_data_update(static_cast<int>(std::min(kMost, bytes - at)), 1, 1, 0, tables, source,
                          &target);
  }
}

absl::StatusOr<std::vector<uint8_t>> RecoveryFactors(int data, const std::vector<int>& symbols,
                                                     int wanted) {
  const std::set<int> different(symbols.begin(), symbols.end());
  if (data < 1 || static_cast<int>(symbols.size()) != data || different.size() != symbols.size() ||
      *different.begin() < 0 || *different.rbegin() >= kMostSymbols || wanted < 0 ||
      wanted >= data) {
    return absl::InvalidArgumentError(
        absl::StrCat(data, " different symbols of a stripe are needed to recover one"));
  }
  const auto size = static_cast<size_t>(data);
  // Row i makes symbols[i] from the data; the inverse makes the data from the symbols.
  std::vector<unsigned char> rows(size * size, 0), inverse(size * size, 0);
  for (size_t i = 0; i < size; ++i) {
    for (int d = 0; d < data; ++d) {
      const int symbol = symbols[i];
      rows[i * size + static_cast<size_t>(d)] =
          symbol >= data ? ParityFactor(data, symbol - data, d) : (symbol == d ? 1 : 0);
    }
  }
  if (gf_invert_matrix(rows.data(), inverse.data(), data) != 0) {
    return absl::InternalError("a matrix of the erasure code has no inverse");
  }
  const auto row = inverse.begin() + static_cast<int64_t>(size) * wanted;
  return std::vector<uint8_t>(row, row + data);
}

}  // namespace longspan
