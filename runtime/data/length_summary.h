// LengthSummary: how long the documents of a token data set are. Pure.
#ifndef LONGSPAN_RUNTIME_DATA_LENGTH_SUMMARY_H_
#define LONGSPAN_RUNTIME_DATA_LENGTH_SUMMARY_H_

#include <array>
#include <cstdint>
#include <vector>

namespace longspan {

struct LengthSummary {
  static constexpr std::array<int, 5> kPercents = {25, 50, 75, 90, 99};

  // Documents of [begin, end) tokens: [0, 1), then [2^i, 2^(i+1)).
  struct Bin {
    int64_t begin = 0, end = 0;
    int64_t documents = 0, tokens = 0;
  };
  int64_t documents = 0, tokens = 0;
  int64_t minimum = 0, maximum = 0;
  double mean = 0;
  // Of kPercents: the smallest length that at least so many percent of the documents do not exceed.
  std::array<int64_t, kPercents.size()> quantiles{};
  std::vector<Bin> bins;  // without gaps, from the bin of the minimum to the bin of the maximum
};

// `lengths` in tokens, in any order. All zero, without bins, for none.
LengthSummary SummarizeLengths(std::vector<int64_t> lengths);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_LENGTH_SUMMARY_H_
