// GELU and its slope on vectors, for Highway's per-target code: included once per instruction set,
// hence the unusual guard.
#if defined(LONGSPAN_KERNELS_CPU_GELU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSPAN_KERNELS_CPU_GELU_INL_H_
#undef LONGSPAN_KERNELS_CPU_GELU_INL_H_
#else
#define LONGSPAN_KERNELS_CPU_GELU_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {

// 0.5 (1 + tanh(u)) is sigmoid(2u), so with u = sqrt(2/pi) (x + 0.044715 x^3) GELU is x *
// sigmoid(2u).
constexpr float kGeluTwoU = 1.5957691216057308f;  // 2 sqrt(2/pi)
constexpr float kGeluCubic = 0.044715f;

template <class D, class V>
HWY_INLINE V Gelu(D d, V x) {
  const V factor =
      hn::MulAdd(hn::Mul(x, x), hn::Set(d, kGeluTwoU * kGeluCubic), hn::Set(d, kGeluTwoU));
  return hn::Mul(x, Sigmoid(d, hn::Mul(x, factor)));
}

template <class D, class V>
HWY_INLINE V GeluSlope(D d, V x) {
  const V square = hn::Mul(x, x);
  const V factor = hn::MulAdd(square, hn::Set(d, kGeluTwoU * kGeluCubic), hn::Set(d, kGeluTwoU));
  const V s = Sigmoid(d, hn::Mul(x, factor));
  const V factor_slope =
      hn::MulAdd(square, hn::Set(d, 3.0f * kGeluTwoU * kGeluCubic), hn::Set(d, kGeluTwoU));
  const V one_minus = hn::Sub(hn::Set(d, 1.0f), s);
  return hn::MulAdd(hn::Mul(x, s), hn::Mul(one_minus, factor_slope), s);
}

}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#endif
