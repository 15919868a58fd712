// Loops over the vector lanes of a row, for Highway's per-target code: included once per
// instruction set, hence the unusual guard. A body is written once and is called for whole vectors,
// then for single lanes at the end of the row.
#if defined(LONGSPAN_KERNELS_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSPAN_KERNELS_CPU_LANES_INL_H_
#undef LONGSPAN_KERNELS_CPU_LANES_INL_H_
#else
#define LONGSPAN_KERNELS_CPU_LANES_INL_H_
#endif

#include <cstdint>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Calls body(tag, i) for each vector of float lanes that starts at element i of [0, count).
template <typename Body>
HWY_INLINE void ForLanes(int64_t count, const Body& body) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) body(d, i);
  const hn::CappedTag<float, 1> single;
  for (; i < count; ++i) body(single, i);
}

// y += x.
HWY_INLINE void AddRow(const float* x, int64_t count, float* y) {
  ForLanes(count, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, y + i), hn::LoadU(d, x + i)), d, y + i);
  });
}

// The sum of term(tag, i) over [0, count): four running vectors, so that additions overlap and
// errors stay small.
template <typename Term>
HWY_INLINE float SumLanes(int64_t count, const Term& term) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    sum0 = hn::Add(sum0, term(d, i));
    sum1 = hn::Add(sum1, term(d, i + lanes));
    sum2 = hn::Add(sum2, term(d, i + 2 * lanes));
    sum3 = hn::Add(sum3, term(d, i + 3 * lanes));
  }
  for (; i + lanes <= count; i += lanes) sum0 = hn::Add(sum0, term(d, i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
  const hn::CappedTag<float, 1> single;
  for (; i < count; ++i) sum += hn::GetLane(term(single, i));
  return sum;
}

// 1 / (1 + exp(-x)). A NaN gives 1, so multiply by x where it must show.
template <class D, class V>
HWY_INLINE V Sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  // Highway's Exp is not defined above 104. exp(-88) is 6e-39: zero for every purpose here.
  const V e = hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 88.0f)));
  return hn::Div(one, hn::Add(one, e));
}

}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#endif
