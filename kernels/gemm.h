// Matrix products.
#ifndef LONGSPAN_KERNELS_GEMM_H_
#define LONGSPAN_KERNELS_GEMM_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

enum class Transpose { kNo, kYes };

// c = alpha * op(a) * op(b) + beta * c, or with bias (n), which has c's dtype, bias added to every
// row of that. op(a): (m, k), op(b): (k, n), c: (m, n); two dimensions, rows may be strided. beta =
// 0 never reads c. All f32; on a GPU also a and b bf16 with c f32 or bf16. Sums are f32 everywhere
// (never TF32). On the CPU work is split over rows of c; on a GPU the library chooses, the bias is
// added before c is written, and equal calls give equal bits.
void Gemm(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b,
          float beta, TensorView c, Stream& stream, TensorView bias = TensorView());

// What matrix products on a GPU keep with each stream, of device memory.
inline constexpr int64_t kGpuGemmWorkspaceBytes = int64_t{32} << 20;

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_GEMM_H_
