// Running median.
#ifndef LONGSPAN_OPTIM_MEDIAN_FILTER_H_
#define LONGSPAN_OPTIM_MEDIAN_FILTER_H_

#include <cstdint>
#include <vector>

namespace longspan {

// What stands beyond the ends, for x = a b c d.
enum class Padding {
  kSymmetric,           // c b a | a b c d | d c b
  kNearestThenReflect,  // a a a | a b c d | c b a: scripts of arXiv 2310.07831
};

// The median of the `width` values around each: width odd, at most 2 * values.size() - 1, values
// without NaN. O(n log width).
std::vector<double> MedianFilter(const std::vector<double>& values, int64_t width, Padding padding);

// The mean of the middle two where their number is even. values: not empty, without NaN.
double Median(std::vector<double> values);

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_MEDIAN_FILTER_H_
