// The row-wise operators around attention: merging of two results, and delta.
#include <cmath>
#include <limits>

#include "kernels/attention.h"
#include "kernels/cpu/row_blocks.h"
#include "kernels/cuda/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_rows.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {
namespace {

// delta[head] = dot(out, dout) for vectors of `head_dim` that are adjacent.
void DeltaRow(const float* out, const float* dout, int64_t heads, int64_t head_dim, float* delta) {
  for (int64_t head = 0; head < heads; ++head) {
    delta[head] = SumLanes(head_dim, [&](auto d, int64_t i) HWY_ATTR {
      return hn::Mul(hn::LoadU(d, out + i), hn::LoadU(d, dout + i));
    });
    out += head_dim;
    dout += head_dim;
  }
}

// out = factor * out + block_factor * block_out. A side with factor 0 is not read.
void Blend(const float* block_out, float block_factor, int64_t head_dim, float factor, float* out) {
  ForLanes(head_dim, [&](auto d, int64_t i) HWY_ATTR {
    auto sum = hn::Zero(d);
    if (factor != 0) sum = hn::Mul(hn::LoadU(d, out + i), hn::Set(d, factor));
    if (block_factor != 0) {
      sum = hn::MulAdd(hn::LoadU(d, block_out + i), hn::Set(d, block_factor), sum);
    }
    hn::StoreU(sum, d, out + i);
  });
}

void MergeRow(const float* block_out, const float* block_lse, int64_t heads, int64_t head_dim,
              float* out, float* lse) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int64_t head = 0; head < heads; ++head) {
    const float block = block_lse[head] == kInfinity ? -kInfinity : block_lse[head];
    const float running = lse[head];
    if (block == -kInfinity && running == -kInfinity) {
      Blend(block_out, 0, head_dim, 0, out);
    } else {
      // The weights come from the difference, not from the merged value: that one is rounded at its
      // own size.
      const float ahead = block - running;
      Blend(block_out, 1 / (1 + std::exp(-ahead)), head_dim, 1 / (1 + std::exp(ahead)), out);
      lse[head] = std::fmax(running, block) + std::log1p(std::exp(-std::fabs(ahead)));
    }
    block_out += head_dim;
    out += head_dim;
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan {

HWY_EXPORT(DeltaRow);
HWY_EXPORT(MergeRow);

namespace {

void CheckPair(const TensorView& out, const TensorView& other, const TensorView& per_head,
               DType other_dtype = DType::kF32) {
  LONGSPAN_CHECK(out.rank() == 3 && other.rank() == 3, "attention takes (rows, heads, head_dim)");
  LONGSPAN_CHECK(out.dtype() == DType::kF32 && other.dtype() == other_dtype,
                 "a tensor of attention has the wrong dtype");
  for (int axis = 0; axis < 3; ++axis) {
    LONGSPAN_CHECK(out.dim(axis) == other.dim(axis), "shapes do not match");
  }
  LONGSPAN_CHECK(out.dim(1) == 1 || (out.stride(1) == out.dim(2) && other.stride(1) == out.dim(2)),
                 "heads must be adjacent");
  CheckMatrix(per_head, out.dim(0), out.dim(1));
}

}  // namespace

void MergeAttention(TensorView block_out, TensorView block_lse, TensorView out, TensorView lse,
                    Stream& stream) {
  CheckPair(out, block_out, lse);
  CheckMatrix(block_lse, out.dim(0), out.dim(1));
  LONGSPAN_RUN_ON_CUDA(stream, MergeAttention(block_out, block_lse, out, lse, stream));
  stream.Launch("merge_attention", [=, pool = &stream.device().threads()] {
    const int64_t heads = out.dim(1), head_dim = out.dim(2);
    ForRowBlocks(*pool, out.dim(0), heads * head_dim, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        HWY_DYNAMIC_DISPATCH(MergeRow)
        (block_out.data<float>() + row * block_out.stride(0),
         block_lse.data<float>() + row * block_lse.stride(0), heads, head_dim,
         out.data<float>() + row * out.stride(0), lse.data<float>() + row * lse.stride(0));
      }
    });
  });
}

void AttentionDelta(TensorView out, TensorView dout, TensorView delta, Stream& stream) {
  CheckPair(out, dout, delta, ComputeType(dout, stream));
  LONGSPAN_RUN_ON_CUDA(stream, AttentionDelta(out, dout, delta, stream));
  stream.Launch("attention_delta", [=, pool = &stream.device().threads()] {
    const int64_t heads = out.dim(1), head_dim = out.dim(2);
    ForRowBlocks(*pool, out.dim(0), heads * head_dim, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        HWY_DYNAMIC_DISPATCH(DeltaRow)
        (out.data<float>() + row * out.stride(0), dout.data<float>() + row * dout.stride(0), heads,
         head_dim, delta.data<float>() + row * delta.stride(0));
      }
    });
  });
}

}  // namespace longspan
#endif  // HWY_ONCE
