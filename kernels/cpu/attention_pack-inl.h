// Moves rows of q, out, ... into transposed panels and back. Included once for each instruction
// set.
#if defined(LONGSPAN_KERNELS_CPU_ATTENTION_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSPAN_KERNELS_CPU_ATTENTION_PACK_INL_H_
#undef LONGSPAN_KERNELS_CPU_ATTENTION_PACK_INL_H_
#else
#define LONGSPAN_KERNELS_CPU_ATTENTION_PACK_INL_H_
#endif

#include <algorithm>

#include "kernels/cpu/attention_product-inl.h"
#include "kernels/cpu/attention_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace longspan::cpu::HWY_NAMESPACE {

// Rows and dimensions are transposed four by four, in vectors of 128 bits.
constexpr int64_t kSquare = HWY_TARGET == HWY_SCALAR ? 1 : 4;
using SquareTag = hn::CappedTag<float, kSquare>;
using SquareVec = hn::Vec<SquareTag>;

HWY_INLINE void TransposeSquare(SquareVec (&x)[kSquare]) {
#if HWY_TARGET != HWY_SCALAR
  const SquareTag d;
  const SquareVec low01 = hn::InterleaveLower(d, x[0], x[1]);
  const SquareVec low23 = hn::InterleaveLower(d, x[2], x[3]);
  const SquareVec high01 = hn::InterleaveUpper(d, x[0], x[1]);
  const SquareVec high23 = hn::InterleaveUpper(d, x[2], x[3]);
  x[0] = hn::ConcatLowerLower(d, low23, low01);
  x[1] = hn::ConcatUpperUpper(d, low23, low01);
  x[2] = hn::ConcatLowerLower(d, high23, high01);
  x[3] = hn::ConcatUpperUpper(d, high23, high01);
#else
  (void)x;
#endif
}

// Packs rows [begin, end) of x, times `factor`, transposed: out[panel][dimension][lane]. Lanes past
// `end` are 0.
HWY_INLINE void PackTransposed(const HeadRows& rows, StridedRows<const float> x, int64_t begin,
                               int64_t end, float factor, float* out) {
  const SquareTag d;
  const SquareVec factors = hn::Set(d, factor);
  const int64_t head_dim = rows.head_dim;
  for (int64_t panel = begin; panel < end; panel += kPanel) {
    const int64_t lanes = std::min(kPanel, end - panel);
    int64_t lane = 0;
    for (; lane + kSquare <= lanes; lane += kSquare) {
      const float* source[kSquare];
      for (int64_t r = 0; r < kSquare; ++r) source[r] = rows.Vector(x, panel + lane + r);
      int64_t i = 0;
      for (; i + kSquare <= head_dim; i += kSquare) {
        SquareVec square[kSquare];
        for (int64_t r = 0; r < kSquare; ++r) {
          square[r] = hn::Mul(factors, hn::LoadU(d, source[r] + i));
        }
        TransposeSquare(square);
        for (int64_t r = 0; r < kSquare; ++r) {
          hn::StoreU(square[r], d, out + (i + r) * kPanel + lane);
        }
      }
      for (; i < head_dim; ++i) {
        for (int64_t r = 0; r < kSquare; ++r) out[i * kPanel + lane + r] = factor * source[r][i];
      }
    }
    for (; lane < lanes; ++lane) {
      const float* row = rows.Vector(x, panel + lane);
      for (int64_t i = 0; i < head_dim; ++i) out[i * kPanel + lane] = factor * row[i];
    }
    if (lanes < kPanel) {
      for (int64_t i = 0; i < head_dim; ++i) {
        std::fill(out + i * kPanel + lanes, out + (i + 1) * kPanel, 0.0f);
      }
    }
    out += head_dim * kPanel;
  }
}

// The way back for one panel: target(lane)[dimension] = or += factors[lane] *
// panel[dimension][lane], for `lanes` lanes.
template <bool kAccumulate, typename Target>
HWY_INLINE void UnpackPanel(const float* panel, const float* factors, int64_t lanes,
                            int64_t head_dim, const Target& target) {
  const SquareTag d;
  int64_t lane = 0;
  for (; lane + kSquare <= lanes; lane += kSquare) {
    const SquareVec factor = hn::LoadU(d, factors + lane);
    float* rows[kSquare];
    for (int64_t r = 0; r < kSquare; ++r) rows[r] = target(lane + r);
    int64_t i = 0;
    for (; i + kSquare <= head_dim; i += kSquare) {
      SquareVec square[kSquare];
      for (int64_t r = 0; r < kSquare; ++r) {
        square[r] = hn::Mul(factor, hn::LoadU(d, panel + (i + r) * kPanel + lane));
      }
      TransposeSquare(square);
      for (int64_t r = 0; r < kSquare; ++r) {
        if (kAccumulate) square[r] = hn::Add(square[r], hn::LoadU(d, rows[r] + i));
        hn::StoreU(square[r], d, rows[r] + i);
      }
    }
    for (; i < head_dim; ++i) {
      for (int64_t r = 0; r < kSquare; ++r) {
        const float value = factors[lane + r] * panel[i * kPanel + lane + r];
        rows[r][i] = kAccumulate ? rows[r][i] + value : value;
      }
    }
  }
  for (; lane < lanes; ++lane) {
    float* row = target(lane);
    for (int64_t i = 0; i < head_dim; ++i) {
      const float value = factors[lane] * panel[i * kPanel + lane];
      row[i] = kAccumulate ? row[i] + value : value;
    }
  }
}

// Cuts rows [begin, end) of x, times `factor`, into panels of columns: out[column
// panel][row][kPanel]. Rows up to `padded` and columns past head_dim are 0.
HWY_INLINE void PackColumnPanels(const HeadRows& rows, StridedRows<const float> x, int64_t begin,
                                 int64_t end, int64_t padded, float factor, float* out) {
  const FloatTag d;
  const FloatVec factors = hn::Set(d, factor);
  const int64_t head_dim = rows.head_dim;
  for (int64_t row = begin; row < end; ++row) {
    const float* source = rows.Vector(x, row);
    float* target = out + (row - begin) * kPanel;
    int64_t column = 0;
    for (; column + kPanel <= head_dim; column += kPanel) {
      const FloatVec left = hn::LoadU(d, source + column);
      const FloatVec right = hn::LoadU(d, source + column + kLanes);
      hn::StoreU(hn::Mul(factors, left), d, target);
      hn::StoreU(hn::Mul(factors, right), d, target + kLanes);
      target += padded * kPanel;
    }
    if (column == head_dim) continue;
    for (int64_t i = 0; i < head_dim - column; ++i) target[i] = factor * source[column + i];
    std::fill(target + (head_dim - column), target + kPanel, 0.0f);
  }
  for (int64_t column = 0; column < head_dim; column += kPanel) {
    std::fill(out + column * padded + (end - begin) * kPanel, out + (column + kPanel) * padded,
              0.0f);
  }
}

}  // namespace longspan::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGSPAN_KERNELS_CPU_ATTENTION_PACK_INL_H_
