// Matrix products, and what is done to a result on its way to memory.
#ifndef LONGSPAN_KERNELS_GEMM_H_
#define LONGSPAN_KERNELS_GEMM_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

enum class Transpose { kNo, kYes };

// What a product c (m, n) of op(a) (m, k) and op(b) (k, n) does besides. On a GPU it costs no pass
// over memory where the library offers it for these operands, else a pass of its own; results
// differ by rounding alone. No operand overlaps another.
struct Epilogue {
  enum class Kind { kNone, kBias, kBiasGelu, kGeluGradient, kBiasGradient };

  Kind kind = Kind::kNone;
  TensorView bias;            // (n), or its gradient
  TensorView pre_activation;  // (m, n), c's dtype

  // c += bias, of c's dtype, in every row. Nothing where bias is empty.
  static Epilogue Bias(TensorView bias);
  // With the bias, of c's dtype, a layer's hidden units: pre_activation, which is overwritten,
  // takes c + bias, and c its GELU, as activation.h defines it. Needs beta = 0.
  static Epilogue BiasGelu(TensorView bias, TensorView pre_activation);
  // The gradient of that: c *= the slope of GELU at pre_activation, which is read. Needs beta = 0.
  static Epilogue GeluGradient(TensorView pre_activation);
  // Of a product that gives the gradient of weights: dbias, f32, += the column sums of b, which is
  // not transposed. alpha has no part in it. Nothing where dbias is empty.
  static Epilogue BiasGradient(TensorView dbias);
};

// c = alpha * op(a) * op(b) + beta * c, then the epilogue. op(a): (m, k), op(b): (k, n), c: (m, n);
// two dimensions, rows may be strided. beta = 0 never reads c. All f32; on a GPU also a and b bf16
// with c f32 or bf16. Sums are f32 everywhere (never TF32). On the CPU work is split over rows of
// c; on a GPU the library chooses, and equal calls give equal bits.
void Gemm(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b,
          float beta, TensorView c, Stream& stream, const Epilogue& epilogue = {});

// What matrix products on a GPU keep with each stream, of device memory.
inline constexpr int64_t kGpuGemmWorkspaceBytes = int64_t{32} << 20;

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_GEMM_H_
