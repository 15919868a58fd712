#include "optim/median_filter.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "kernels/device/check.h"

namespace longspan {
namespace {

double At(const std::vector<double>& values, int64_t i, Padding padding) {
  const int64_t n = static_cast<int64_t>(values.size());
  if (i < 0) return padding == Padding::kSymmetric ? values[-i - 1] : values.front();
  if (i >= n) return padding == Padding::kSymmetric ? values[2 * n - 1 - i] : values[2 * n - 2 - i];
  return values[i];
}

}  // namespace

std::vector<double> MedianFilter(const std::vector<double>& values, int64_t width,
                                 Padding padding) {
  const int64_t n = static_cast<int64_t>(values.size());
  LONGSPAN_CHECK(width >= 1 && width % 2 == 1 && width <= 2 * n - 1, "an odd width within reach");
  const int64_t half = width / 2;
  std::multiset<double> window;
  for (int64_t i = -half; i <= half; ++i) window.insert(At(values, i, padding));
  auto middle = std::next(window.begin(), half);
  std::vector<double> filtered(n);
  for (int64_t i = 0;; ++i) {
    filtered[i] = *middle;
    if (i + 1 == n) return filtered;
    const double entering = At(values, i + 1 + half, padding);
    const double leaving = At(values, i - half, padding);
    // An equal value is inserted behind its equals, and the first of its equals is taken out: both
    // decide on which side of `middle` that happens.
    window.insert(entering);
    if (entering < *middle) --middle;
    if (leaving <= *middle) ++middle;
    window.erase(window.lower_bound(leaving));
  }
}

double Median(std::vector<double> values) {
  LONGSPAN_CHECK(!values.empty(), "a median of something");
  const size_t half = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + half, values.end());
  const double upper = values[half];
  if (values.size() % 2 == 1) return upper;
  const double lower = *std::max_element(values.begin(), values.begin() + half);
  return lower == upper ? lower : lower / 2 + upper / 2;
}

}  // namespace longspan
