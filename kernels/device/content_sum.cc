#include "kernels/device/content_sum.h"

#include <algorithm>
#include <array>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/device/content_sum.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"

// Included once per instruction set: what they share is defined once.
#ifndef LONGSPAN_KERNELS_DEVICE_CONTENT_SUM_SHARED_
#define LONGSPAN_KERNELS_DEVICE_CONTENT_SUM_SHARED_
namespace longspan {
namespace {

constexpr int64_t kSpan = 1024;  // positions of one scale

// The n-th number of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) that was seeded with 0.
constexpr uint64_t SplitMix(uint64_t n) {
  uint64_t z = (n + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

constexpr std::array<uint32_t, kSpan> MakeTable() {
  std::array<uint32_t, kSpan> table{};
  for (int64_t i = 0; i < kSpan; ++i) {
    table[i] = static_cast<uint32_t>(SplitMix(static_cast<uint64_t>(i)) >> 32) | 1;
  }
  return table;
}
constexpr std::array<uint32_t, kSpan> kTable = MakeTable();

// Numbers that the table has not taken.
uint64_t Scale(int64_t span) { return SplitMix(static_cast<uint64_t>(kSpan + span)) | 1; }

}  // namespace
}  // namespace longspan
#endif

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// sum of words[i] * keys[i] mod 2^64, over words of one span.
uint64_t SpanSum(const uint8_t* words, int64_t count, const uint32_t* keys) {
  uint64_t sum = 0;
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint32_t> d;
  const hn::Repartition<uint64_t, decltype(d)> wide;
  const hn::Repartition<uint8_t, decltype(d)> bytes;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto add = [&](int64_t at, auto& even, auto& odd) HWY_ATTR {
    const auto w = hn::BitCast(d, hn::LoadU(bytes, words + 4 * at));
    const auto k = hn::LoadU(d, keys + at);
    even = hn::Add(even, hn::MulEven(w, k));
    odd = hn::Add(odd, hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, w))),
                                   hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, k)))));
  };
  auto even0 = hn::Zero(wide), odd0 = even0, even1 = even0, odd1 = even0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    add(i, even0, odd0);
    add(i + lanes, even1, odd1);
  }
  if (i + lanes <= count) {
    add(i, even0, odd0);
    i += lanes;
  }
  const auto sums = hn::Add(hn::Add(even0, odd0), hn::Add(even1, odd1));
  sum = hn::GetLane(hn::SumOfLanes(wide, sums));
#endif
  for (; i < count; ++i) {
    uint32_t word;
    hwy::CopyBytes<sizeof(word)>(words + 4 * i, &word);
    sum += uint64_t{word} * keys[i];
  }
  return sum;
}

uint64_t Sum(const uint8_t* words, int64_t count, int64_t position) {
  uint64_t sum = 0;
  for (int64_t at = 0; at < count;) {
    const int64_t place = (position + at) % kSpan;
    const int64_t part = std::min(kSpan - place, count - at);
    sum += Scale((position + at) / kSpan) * SpanSum(words + 4 * at, part, kTable.data() + place);
    at += part;
  }
  return sum;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan {

HWY_EXPORT(Sum);

uint64_t ContentSum(const void* words, int64_t count, int64_t position) {
  return HWY_DYNAMIC_DISPATCH(Sum)(static_cast<const uint8_t*>(words), count, position);
}

}  // namespace longspan
#endif  // HWY_ONCE
