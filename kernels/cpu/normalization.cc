#include "kernels/normalization.h"

#include <cmath>
#include <vector>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cuda/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/normalization.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {
namespace {

// Returns rstd.
float RmsNormRow(const float* x, const float* weight, float eps, int64_t width, float* y) {
  const float squares = SumLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = hn::LoadU(d, x + i);
    return hn::Mul(v, v);
  });
  const float rstd = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
  ForLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto normalized = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, rstd));
    hn::StoreU(hn::Mul(normalized, hn::LoadU(d, weight + i)), d, y + i);
  });
  return rstd;
}

// dx, dweight: += of this row.
void RmsNormGradientRow(const float* dy, const float* x, const float* weight, float rstd,
                        int64_t width, float* dx, float* dweight) {
  // With n = x * rstd and g = dy * weight: dx = rstd * (g - n * mean(g * n)).
  const float dot = SumLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, weight + i));
    return hn::Mul(g, hn::LoadU(d, x + i));
  });
  const float mean = dot * rstd / static_cast<float>(width);
  ForLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto scale = hn::Set(d, rstd);
    const auto gradient = hn::LoadU(d, dy + i);
    const auto normalized = hn::Mul(hn::LoadU(d, x + i), scale);
    const auto g = hn::Mul(gradient, hn::LoadU(d, weight + i));
    const auto inner = hn::NegMulAdd(normalized, hn::Set(d, mean), g);
    hn::StoreU(hn::MulAdd(scale, inner, hn::LoadU(d, dx + i)), d, dx + i);
    hn::StoreU(hn::MulAdd(gradient, normalized, hn::LoadU(d, dweight + i)), d, dweight + i);
  });
}

struct RowMoments {
  float mean;
  float rstd;
};

RowMoments LayerNormRow(const float* x, const float* weight, const float* bias, float eps,
                        int64_t width, float* y) {
  const float sum =
      SumLanes(width, [&](auto d, int64_t i) HWY_ATTR { return hn::LoadU(d, x + i); });
  const float mean = sum / static_cast<float>(width);
  // The mean is subtracted before squaring: the one-pass formula loses all digits when the mean is
  // large.
  const float squares = SumLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto centred = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean));
    return hn::Mul(centred, centred);
  });
  const float rstd = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
  ForLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto centred = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean));
    const auto normalized = hn::Mul(centred, hn::Set(d, rstd));
    hn::StoreU(hn::MulAdd(normalized, hn::LoadU(d, weight + i), hn::LoadU(d, bias + i)), d, y + i);
  });
  return {mean, rstd};
}

// dx, dweight, dbias: += of this row.
void LayerNormGradientRow(const float* dy, const float* x, const float* weight, float mean,
                          float rstd, int64_t width, float* dx, float* dweight, float* dbias) {
  // With n = (x - mean) * rstd and g = dy * weight: dx = rstd * (g - mean(g) - n * mean(g * n)).
  const float sum = SumLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    return hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, weight + i));
  });
  const float dot = SumLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, weight + i));
    return hn::Mul(g, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean)));
  });
  const float mean_g = sum / static_cast<float>(width);
  const float mean_gn = dot * rstd / static_cast<float>(width);
  ForLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto scale = hn::Set(d, rstd);
    const auto gradient = hn::LoadU(d, dy + i);
    const auto normalized = hn::Mul(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean)), scale);
    const auto g = hn::Mul(gradient, hn::LoadU(d, weight + i));
    const auto inner =
        hn::NegMulAdd(normalized, hn::Set(d, mean_gn), hn::Sub(g, hn::Set(d, mean_g)));
    hn::StoreU(hn::MulAdd(scale, inner, hn::LoadU(d, dx + i)), d, dx + i);
    hn::StoreU(hn::MulAdd(gradient, normalized, hn::LoadU(d, dweight + i)), d, dweight + i);
    hn::StoreU(hn::Add(gradient, hn::LoadU(d, dbias + i)), d, dbias + i);
  });
}

void RmsNormRows(const TensorView& x, const float* weight, float eps, const TensorView& y,
                 float* rstd, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    rstd[r] = RmsNormRow(x.data<float>() + r * x.stride(0), weight, eps, x.dim(1),
                         y.data<float>() + r * y.stride(0));
  }
}

void RmsNormGradientRows(const TensorView& dy, const TensorView& x, const float* weight,
                         const float* rstd, const TensorView& dx, float* dweight, int64_t begin,
                         int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    RmsNormGradientRow(dy.data<float>() + r * dy.stride(0), x.data<float>() + r * x.stride(0),
                       weight, rstd[r], x.dim(1), dx.data<float>() + r * dx.stride(0), dweight);
  }
}

void LayerNormRows(const TensorView& x, const float* weight, const float* bias, float eps,
                   const TensorView& y, float* mean, float* rstd, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const RowMoments moments = LayerNormRow(x.data<float>() + r * x.stride(0), weight, bias, eps,
                                            x.dim(1), y.data<float>() + r * y.stride(0));
    mean[r] = moments.mean;
    rstd[r] = moments.rstd;
  }
}

void LayerNormGradientRows(const TensorView& dy, const TensorView& x, const float* weight,
                           const float* mean, const float* rstd, const TensorView& dx,
                           float* dweight, float* dbias, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    LayerNormGradientRow(dy.data<float>() + r * dy.stride(0), x.data<float>() + r * x.stride(0),
                         weight, mean[r], rstd[r], x.dim(1), dx.data<float>() + r * dx.stride(0),
                         dweight, dbias);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan {

HWY_EXPORT(RmsNormRows);
HWY_EXPORT(RmsNormGradientRows);
HWY_EXPORT(LayerNormRows);
HWY_EXPORT(LayerNormGradientRows);

namespace {

struct NormShape {
  int64_t rows, width;
};

// `side` is y or dy, which has the weight's dtype: that of x, or on a GPU bf16 beside x in f32.
NormShape CheckedNorm(const TensorView& x, const TensorView& side, const TensorView& weight,
                      const TensorView& rstd, const Stream& stream) {
  LONGSPAN_CHECK(x.rank() == 2, "x is (rows, width)");
  const NormShape shape{x.dim(0), x.dim(1)};
  const DType dtype = ComputeType(side, stream);
  LONGSPAN_CHECK(x.dtype() == dtype || x.dtype() == DType::kF32, "x has another dtype");
  CheckMatrix(x, shape.rows, shape.width, x.dtype());
  CheckMatrix(side, shape.rows, shape.width, dtype);
  CheckVector(weight, shape.width, dtype);
  CheckVector(rstd, shape.rows);
  return shape;
}

}  // namespace

void RmsNormForward(TensorView x, TensorView weight, float eps, TensorView y, TensorView rstd,
                    Stream& stream) {
  const NormShape shape = CheckedNorm(x, y, weight, rstd, stream);
  LONGSPAN_RUN_ON_CUDA(stream, RmsNormForward(x, weight, eps, y, rstd, stream));
  stream.Launch("rms_norm_forward", [=, threads = &stream.device().threads()] {
    ForRowBlocks(*threads, shape.rows, shape.width, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(RmsNormRows)
      (x, weight.data<float>(), eps, y, rstd.data<float>(), begin, end);
    });
  });
}

void RmsNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView rstd, TensorView dx,
                     TensorView dweight, Stream& stream) {
  const auto [rows, width] = CheckedNorm(x, dy, weight, rstd, stream);
  CheckMatrix(dx, rows, width, x.dtype());
  CheckVector(dweight, width);
  LONGSPAN_RUN_ON_CUDA(stream, RmsNormBackward(dy, x, weight, rstd, dx, dweight, stream));
  stream.Launch(
      "rms_norm_backward", [=, rows = rows, width = width, threads = &stream.device().threads()] {
        const ColumnSumChunks chunks(rows);
        std::vector<float> partials(chunks.count * width, 0.0f);
        threads->ParallelFor(chunks.count, [&](int64_t chunk) {
          const int64_t begin = chunk * chunks.rows_each;
          HWY_DYNAMIC_DISPATCH(RmsNormGradientRows)
          (dy, x, weight.data<float>(), rstd.data<float>(), dx, partials.data() + chunk * width,
           begin, std::min(rows, begin + chunks.rows_each));
        });
        AddPartialSums(*threads, partials.data(), chunks.count, width, dweight.data<float>());
      });
}

void LayerNormForward(TensorView x, TensorView weight, TensorView bias, float eps, TensorView y,
                      TensorView mean, TensorView rstd, Stream& stream) {
  const NormShape shape = CheckedNorm(x, y, weight, rstd, stream);
  CheckVector(bias, shape.width, y.dtype());
  CheckVector(mean, shape.rows);
  LONGSPAN_RUN_ON_CUDA(stream, LayerNormForward(x, weight, bias, eps, y, mean, rstd, stream));
  stream.Launch("layer_norm_forward", [=, threads = &stream.device().threads()] {
    ForRowBlocks(*threads, shape.rows, shape.width, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(LayerNormRows)
      (x, weight.data<float>(), bias.data<float>(), eps, y, mean.data<float>(), rstd.data<float>(),
       begin, end);
    });
  });
}

void LayerNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView mean,
                       TensorView rstd, TensorView dx, TensorView dweight, TensorView dbias,
                       Stream& stream) {
  const auto [rows, width] = CheckedNorm(x, dy, weight, rstd, stream);
  CheckMatrix(dx, rows, width, x.dtype());
  CheckVector(mean, rows);
  CheckVector(dweight, width);
  CheckVector(dbias, width);
  LONGSPAN_RUN_ON_CUDA(stream,
                       LayerNormBackward(dy, x, weight, mean, rstd, dx, dweight, dbias, stream));
  stream.Launch(
      "layer_norm_backward", [=, rows = rows, width = width, threads = &stream.device().threads()] {
        const ColumnSumChunks chunks(rows);
        std::vector<float> partials(2 * chunks.count * width, 0.0f);
        float* const weight_partials = partials.data();
        float* const bias_partials = partials.data() + chunks.count * width;
        threads->ParallelFor(chunks.count, [&](int64_t chunk) {
          const int64_t begin = chunk * chunks.rows_each;
          HWY_DYNAMIC_DISPATCH(LayerNormGradientRows)
          (dy, x, weight.data<float>(), mean.data<float>(), rstd.data<float>(), dx,
           weight_partials + chunk * width, bias_partials + chunk * width, begin,
           std::min(rows, begin + chunks.rows_each));
        });
        AddPartialSums(*threads, weight_partials, chunks.count, width, dweight.data<float>());
        AddPartialSums(*threads, bias_partials, chunks.count, width, dbias.data<float>());
      });
}

}  // namespace longspan
#endif  // HWY_ONCE
