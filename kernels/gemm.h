// Matrix products.
#ifndef LONGSPAN_KERNELS_GEMM_H_
#define LONGSPAN_KERNELS_GEMM_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

enum class Transpose { kNo, kYes };

// c = alpha * op(a) * op(b) + beta * c. op(a): (m, k), op(b): (k, n), c: (m, n); f32, two
// dimensions, rows may be strided. beta = 0 never reads c. Work is split over rows of c.
void Gemm(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b,
          float beta, TensorView c, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_GEMM_H_
