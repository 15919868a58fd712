#include "kernels/activation.h"

#include <cstdint>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cuda/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/gelu-inl.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {
namespace {

void SwiGluRow(const float* gate, const float* up, int64_t ffn, float* y) {
  ForLanes(ffn, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    hn::StoreU(hn::Mul(hn::Mul(g, Sigmoid(d, g)), hn::LoadU(d, up + i)), d, y + i);
  });
}

void SwiGluGradientRow(const float* dy, const float* gate, const float* up, int64_t ffn,
                       float* dgate, float* dup) {
  ForLanes(ffn, [&](auto d, int64_t i) HWY_ATTR {
    const auto gradient = hn::LoadU(d, dy + i);
    const auto g = hn::LoadU(d, gate + i);
    const auto u = hn::LoadU(d, up + i);
    const auto s = Sigmoid(d, g);
    const auto silu = hn::Mul(g, s);
    // silu' = s * (1 + g * (1 - s)) = s + silu * (1 - s).
    const auto slope = hn::MulAdd(silu, hn::Sub(hn::Set(d, 1.0f), s), s);
    hn::StoreU(hn::Mul(hn::Mul(gradient, u), slope), d, dgate + i);
    hn::StoreU(hn::Mul(gradient, silu), d, dup + i);
  });
}

void GeluRow(const float* x, int64_t width, float* y) {
  ForLanes(width,
           [&](auto d, int64_t i) HWY_ATTR { hn::StoreU(Gelu(d, hn::LoadU(d, x + i)), d, y + i); });
}

void GeluGradientRow(const float* dy, const float* x, int64_t width, float* dx) {
  ForLanes(width, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, dy + i), GeluSlope(d, hn::LoadU(d, x + i))), d, dx + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan {

HWY_EXPORT(SwiGluRow);
HWY_EXPORT(SwiGluGradientRow);
HWY_EXPORT(GeluRow);
HWY_EXPORT(GeluGradientRow);

void SwiGluForward(TensorView gate_up, TensorView y, Stream& stream) {
  LONGSPAN_CHECK(y.rank() == 2, "y is (rows, ffn)");
  const int64_t rows = y.dim(0), ffn = y.dim(1);
  const DType dtype = ComputeType(y, stream);
  CheckMatrix(y, rows, ffn, dtype);
  CheckMatrix(gate_up, rows, 2 * ffn, dtype);
  LONGSPAN_RUN_ON_CUDA(stream, SwiGluForward(gate_up, y, stream));
  stream.Launch("swiglu_forward", [=, threads = &stream.device().threads()] {
    ForRowBlocks(*threads, rows, ffn, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float* gate = gate_up.data<float>() + r * gate_up.stride(0);
        HWY_DYNAMIC_DISPATCH(SwiGluRow)
        (gate, gate + ffn, ffn, y.data<float>() + r * y.stride(0));
      }
    });
  });
}

void SwiGluBackward(TensorView dy, TensorView gate_up, TensorView dgate_up, Stream& stream) {
  LONGSPAN_CHECK(dy.rank() == 2, "dy is (rows, ffn)");
  const int64_t rows = dy.dim(0), ffn = dy.dim(1);
  const DType dtype = ComputeType(dy, stream);
  CheckMatrix(dy, rows, ffn, dtype);
  CheckMatrix(gate_up, rows, 2 * ffn, dtype);
  CheckMatrix(dgate_up, rows, 2 * ffn, dtype);
  LONGSPAN_RUN_ON_CUDA(stream, SwiGluBackward(dy, gate_up, dgate_up, stream));
  stream.Launch("swiglu_backward", [=, threads = &stream.device().threads()] {
    ForRowBlocks(*threads, rows, ffn, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float* gate = gate_up.data<float>() + r * gate_up.stride(0);
        float* dgate = dgate_up.data<float>() + r * dgate_up.stride(0);
        HWY_DYNAMIC_DISPATCH(SwiGluGradientRow)
        (dy.data<float>() + r * dy.stride(0), gate, gate + ffn, ffn, dgate, dgate + ffn);
      }
    });
  });
}

void GeluForward(TensorView x, TensorView y, Stream& stream) {
  LONGSPAN_CHECK(x.rank() == 2, "x is (rows, width)");
  const int64_t rows = x.dim(0), width = x.dim(1);
  const DType dtype = ComputeType(x, stream);
  CheckMatrix(x, rows, width, dtype);
  CheckMatrix(y, rows, width, dtype);
  LONGSPAN_RUN_ON_CUDA(stream, GeluForward(x, y, stream));
  stream.Launch("gelu_forward", [=, threads = &stream.device().threads()] {
    ForRowBlocks(*threads, rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        HWY_DYNAMIC_DISPATCH(GeluRow)
        (x.data<float>() + r * x.stride(0), width, y.data<float>() + r * y.stride(0));
      }
    });
  });
}

void GeluBackward(TensorView dy, TensorView x, TensorView dx, Stream& stream) {
  LONGSPAN_CHECK(x.rank() == 2, "x is (rows, width)");
  const int64_t rows = x.dim(0), width = x.dim(1);
  const DType dtype = ComputeType(x, stream);
  CheckMatrix(dy, rows, width, dtype);
  CheckMatrix(x, rows, width, dtype);
  CheckMatrix(dx, rows, width, dtype);
  LONGSPAN_RUN_ON_CUDA(stream, GeluBackward(dy, x, dx, stream));
  stream.Launch("gelu_backward", [=, threads = &stream.device().threads()] {
    ForRowBlocks(*threads, rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        HWY_DYNAMIC_DISPATCH(GeluGradientRow)
        (dy.data<float>() + r * dy.stride(0), x.data<float>() + r * x.stride(0), width,
         dx.data<float>() + r * dx.stride(0));
      }
    });
  });
}

}  // namespace longspan
#endif  // HWY_ONCE
