#include "optim/median_filter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

namespace longspan {
namespace {

TEST(MedianFilterTest, EqualsSortingEveryWindow) {
  std::mt19937 random(3);
  for (const int64_t n : {1, 2, 3, 10, 57}) {
    for (const int distinct : {2, 5, 1000}) {  // few: many ties
      std::vector<double> values;
      for (int64_t i = 0; i < n; ++i) values.push_back(static_cast<int>(random() % distinct));
      for (int64_t width = 1; width <= n; width += 2) {
        for (const Padding padding : {Padding::kSymmetric, Padding::kNearestThenReflect}) {
          const int64_t half = width / 2;
          std::vector<double> padded(values);
          for (int64_t i = 0; i < half; ++i) {
            const bool symmetric = padding == Padding::kSymmetric;
            padded.insert(padded.begin(), symmetric ? values[i] : values[0]);
            padded.push_back(symmetric ? values[n - 1 - i] : values[n - 2 - i]);
          }
          const std::vector<double> filtered = MedianFilter(values, width, padding);
          for (int64_t i = 0; i < n; ++i) {
            std::vector<double> window(padded.begin() + i, padded.begin() + i + width);
            std::sort(window.begin(), window.end());
            ASSERT_EQ(filtered[i], window[half]) << n << " " << width << " " << i;
          }
        }
      }
    }
  }
}

TEST(MedianFilterTest, WideWindowsStayFast) {
  std::mt19937 random(5);
  std::vector<double> values;
  for (int i = 0; i < 200000; ++i) values.push_back(static_cast<double>(random()));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(MedianFilter(values, 20001, Padding::kSymmetric).size(), values.size());
  // Sorting every window would take minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15));
}

TEST(MedianFilterTest, MedianOfEvenNumbersIsTheMiddle) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(Median({7}), 7);
  EXPECT_EQ(Median({1e308, 1e308}), 1e308);
}

}  // namespace
}  // namespace longspan
