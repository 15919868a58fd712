#include "runtime/data/length_summary.h"

#include <algorithm>
#include <bit>

namespace longspan {

LengthSummary SummarizeLengths(std::vector<int64_t> lengths) {
  LengthSummary summary;
  if (lengths.empty()) return summary;
  std::sort(lengths.begin(), lengths.end());
  const int64_t count = static_cast<int64_t>(lengths.size());
  summary.documents = count;
  summary.minimum = lengths.front();
  summary.maximum = lengths.back();
  for (size_t i = 0; i < LengthSummary::kPercents.size(); ++i) {
    const int64_t rank = (count * LengthSummary::kPercents[i] + 99) / 100;
    summary.quantiles[i] = lengths[std::max<int64_t>(rank, 1) - 1];
  }
  for (const int64_t length : lengths) {
    while (summary.bins.empty() || length >= summary.bins.back().end) {
      LengthSummary::Bin bin;
      bin.begin = !summary.bins.empty() ? summary.bins.back().end
                  : length == 0
                      ? 0
                      : static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(length)));
      bin.end = std::max<int64_t>(1, 2 * bin.begin);
      summary.bins.push_back(bin);
    }
    ++summary.bins.back().documents;
    summary.bins.back().tokens += length;
    summary.tokens += length;
  }
  summary.mean = static_cast<double>(summary.tokens) / static_cast<double>(count);
  return summary;
}

}  // namespace longspan
