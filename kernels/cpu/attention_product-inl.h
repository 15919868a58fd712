// The one matrix product of attention, and 2^x. Included once for each instruction set, inside
// HWY_NAMESPACE files.
//
// A *panel* is a matrix of kPanel columns, two vectors wide, with rows at any stride. All products
// of attention have the form panel C (+)= A * panel B, where A is read an element at a time and so
// may lie in memory either way.
#if defined(LONGSPAN_KERNELS_CPU_ATTENTION_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSPAN_KERNELS_CPU_ATTENTION_PRODUCT_INL_H_
#undef LONGSPAN_KERNELS_CPU_ATTENTION_PRODUCT_INL_H_
#else
#define LONGSPAN_KERNELS_CPU_ATTENTION_PRODUCT_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace longspan::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using IntTag = hn::RebindToSigned<FloatTag>;
using FloatVec = hn::Vec<FloatTag>;

constexpr int64_t kLanes = hn::MaxLanes(FloatTag());
constexpr int64_t kPanel = 2 * kLanes;
// Rows of C held in registers: 6 x 2 accumulators, 2 vectors of B and an element of A fit 16
// registers and cover the latency of two multiply-add units.
constexpr int kTileRows = 6;

// How A(row, inner) lies in memory.
enum class Layout { kRowMajor, kColumnMajor };

template <int kRows, Layout kLayoutA, bool kAccumulate>
HWY_INLINE void ProductTile(const float* HWY_RESTRICT a, int64_t a_stride, int64_t inner,
                            const float* HWY_RESTRICT b, int64_t b_stride, float* HWY_RESTRICT c,
                            int64_t c_stride) {
  const FloatTag d;
  FloatVec left[kRows], right[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    left[i] = hn::Zero(d);
    right[i] = hn::Zero(d);
    if (kAccumulate) hwy::Prefetch(c + i * c_stride);
  }
  for (int64_t l = 0; l < inner; ++l) {
    const FloatVec b_left = hn::LoadU(d, b);
    const FloatVec b_right = hn::LoadU(d, b + kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const FloatVec element =
          hn::Set(d, kLayoutA == Layout::kRowMajor ? a[i * a_stride + l] : a[l * a_stride + i]);
      left[i] = hn::MulAdd(element, b_left, left[i]);
      right[i] = hn::MulAdd(element, b_right, right[i]);
    }
    b += b_stride;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    float* row = c + i * c_stride;
    if (kAccumulate) {
      left[i] = hn::Add(left[i], hn::LoadU(d, row));
      right[i] = hn::Add(right[i], hn::LoadU(d, row + kLanes));
    }
    hn::StoreU(left[i], d, row);
    hn::StoreU(right[i], d, row + kLanes);
  }
}

// c (rows, kPanel) = or += a (rows, inner) * b (inner, kPanel). a_stride is the distance between
// rows of A, or between columns if A is column-major.
template <Layout kLayoutA, bool kAccumulate>
HWY_NOINLINE void PanelProduct(int64_t rows, int64_t inner, const float* a, int64_t a_stride,
                               const float* b, int64_t b_stride, float* c, int64_t c_stride) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) {
    ProductTile<kTileRows, kLayoutA, kAccumulate>(a, a_stride, inner, b, b_stride, c, c_stride);
    a += kLayoutA == Layout::kRowMajor ? kTileRows * a_stride : kTileRows;
    c += kTileRows * c_stride;
  }
  switch (rows - row) {
    case 5:
      return ProductTile<5, kLayoutA, kAccumulate>(a, a_stride, inner, b, b_stride, c, c_stride);
    case 4:
      return ProductTile<4, kLayoutA, kAccumulate>(a, a_stride, inner, b, b_stride, c, c_stride);
    case 3:
      return ProductTile<3, kLayoutA, kAccumulate>(a, a_stride, inner, b, b_stride, c, c_stride);
    case 2:
      return ProductTile<2, kLayoutA, kAccumulate>(a, a_stride, inner, b, b_stride, c, c_stride);
    case 1:
      return ProductTile<1, kLayoutA, kAccumulate>(a, a_stride, inner, b, b_stride, c, c_stride);
    default:
      return;
  }
}

// 2^x for x <= 127, within 1 ulp; 2^-126 below x = -126, so that no denormal ever enters a product;
// NaN stays NaN. Exactly 1 at 0. The polynomial is the minimax one of relative error on [-1/2, 1/2]
// (1.9e-9 before rounding).
HWY_INLINE FloatVec Exp2(FloatVec x) {
  const FloatTag d;
  const IntTag di;
  // The order of the operands matters: x86 returns the second one if either is NaN.
  x = hn::Max(hn::Set(d, -126.0f), x);
  const auto whole = hn::NearestInt(x);
  const FloatVec f = hn::Sub(x, hn::ConvertTo(d, whole));
  FloatVec p = hn::Set(d, 1.53458124e-4f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.33999309e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.61848907e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.55032864e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.40226462e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.93147182e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  // Adds to the exponent field. p is in [0.7, 1.42], so the sum is a normal number.
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(whole)));
}

}  // namespace longspan::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGSPAN_KERNELS_CPU_ATTENTION_PRODUCT_INL_H_
