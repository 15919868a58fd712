#include "kernels/rope.h"

#include <cmath>
#include <vector>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cuda/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {
namespace {

// cosine[i], sine[i] of position * quarter_turns[i] quarter turns, from element i on, for the lanes
// of D (f64).
//
// The angle is reduced in f64, because at position 2^21 an f32 angle has no digits left after the
// point: it becomes a whole number of quarter turns, which only swaps and negates, and a rest
// within +-pi/4 for two f32 polynomials (Cephes, sinf and cosf: below one unit in the last place).
template <class D>
HWY_INLINE void Angles(D d, double position, const double* quarter_turns, int64_t i, float* cosine,
                       float* sine) {
  const hn::Rebind<float, D> df;
  const hn::Rebind<int32_t, D> di;
  const auto turns = hn::Mul(hn::Set(d, position), hn::LoadU(d, quarter_turns + i));
  const auto whole = hn::Round(turns);
  const auto quadrant = hn::DemoteTo(di, whole);
  const auto x =
      hn::DemoteTo(df, hn::Mul(hn::Sub(turns, whole), hn::Set(d, 1.57079632679489661923)));

  const auto z = hn::Mul(x, x);
  auto s = hn::MulAdd(z, hn::Set(df, -1.9515295891e-4f), hn::Set(df, 8.3321608736e-3f));
  s = hn::MulAdd(z, s, hn::Set(df, -1.6666654611e-1f));
  s = hn::MulAdd(hn::Mul(s, z), x, x);
  auto c = hn::MulAdd(z, hn::Set(df, 2.443315711809948e-5f), hn::Set(df, -1.388731625493765e-3f));
  c = hn::MulAdd(z, c, hn::Set(df, 4.166664568298827e-2f));
  c = hn::MulAdd(hn::Mul(c, z), z, hn::NegMulAdd(z, hn::Set(df, 0.5f), hn::Set(df, 1.0f)));

  // Quadrants 1 and 3 swap; the sine is negative in 2 and 3, the cosine in 1 and 2.
  const auto one = hn::Set(di, 1);
  const auto two = hn::Set(di, 2);
  const auto swap = hn::RebindMask(df, hn::Eq(hn::And(quadrant, one), one));
  const auto sine_sign = hn::ShiftLeft<30>(hn::And(quadrant, two));
  const auto cosine_sign = hn::ShiftLeft<30>(hn::And(hn::Add(quadrant, one), two));
  hn::StoreU(hn::Xor(hn::IfThenElse(swap, s, c), hn::BitCast(df, cosine_sign)), df, cosine + i);
  hn::StoreU(hn::Xor(hn::IfThenElse(swap, c, s), hn::BitCast(df, sine_sign)), df, sine + i);
}

void AngleRow(double position, const double* quarter_turns, int64_t half, float* cosine,
              float* sine) {
  const hn::ScalableTag<double> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) Angles(d, position, quarter_turns, i, cosine, sine);
  const hn::CappedTag<double, 1> single;
  for (; i < half; ++i) Angles(single, position, quarter_turns, i, cosine, sine);
}

// Rotates (x[i], x[i + half]) by the angle, or back with direction = -1.
void RotateHead(const float* cosine, const float* sine, float direction, int64_t half, float* x) {
  float* const y = x + half;
  ForLanes(half, [&](auto d, int64_t i) HWY_ATTR {
    const auto c = hn::LoadU(d, cosine + i);
    const auto s = hn::Mul(hn::LoadU(d, sine + i), hn::Set(d, direction));
    const auto a = hn::LoadU(d, x + i);
    const auto b = hn::LoadU(d, y + i);
    hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, x + i);
    hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, y + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan {

HWY_EXPORT(AngleRow);
HWY_EXPORT(RotateHead);

namespace {

void Rotate(const char* name, TensorView x, TensorView positions, double base, float direction,
            Stream& stream) {
  LONGSPAN_CHECK(x.rank() == 3, "x is (rows, heads, head_dim)");
  ComputeType(x, stream);
  LONGSPAN_CHECK(x.dim(2) % 2 == 0, "rotary embedding needs an even head_dim");
  const int64_t rows = x.dim(0), heads = x.dim(1), head_dim = x.dim(2);
  CheckVector(positions, rows, DType::kI32);
  LONGSPAN_RUN_ON_CUDA(stream, Rope(x, positions, base, direction, stream));
  stream.Launch(name, [=, threads = &stream.device().threads()] {
    const int64_t half = head_dim / 2;
    std::vector<double> quarter_turns(half);
    for (int64_t i = 0; i < half; ++i) {
      const double frequency = std::pow(base, -2.0 * static_cast<double>(i) / head_dim);
      quarter_turns[i] = frequency / 1.57079632679489661923;
    }
    ForRowBlocks(*threads, rows, heads * head_dim, [&](int64_t begin, int64_t end) {
      std::vector<float> cosine(half), sine(half);
      for (int64_t r = begin; r < end; ++r) {
        HWY_DYNAMIC_DISPATCH(AngleRow)
        (positions.data<int32_t>()[r], quarter_turns.data(), half, cosine.data(), sine.data());
        float* const row = x.data<float>() + r * x.stride(0);
        for (int64_t h = 0; h < heads; ++h) HWY_DYNAMIC_DISPATCH(RotateHead)
        (cosine.data(), sine.data(), direction, half, row + h * x.stride(1));
      }
    });
  });
}

}  // namespace

void RopeForward(TensorView x, TensorView positions, double base, Stream& stream) {
  Rotate("rope_forward", x, positions, base, 1.0f, stream);
}

void RopeBackward(TensorView dx, TensorView positions, double base, Stream& stream) {
  Rotate("rope_backward", dx, positions, base, -1.0f, stream);
}

}  // namespace longspan
#endif  // HWY_ONCE
