// RMSNorm (arXiv 1910.07467) and LayerNorm (arXiv 1607.06450) over the last dimension, forward and
// backward. Row statistics and sums are FP32 or wider; weight gradients are summed over rows in an
// order that does not depend on the number of threads.
//
// All f32. On a GPU y, dy, weight and bias may be bf16 together, and then x and dx, which have one
// dtype, may be too; statistics and the gradients of weight and bias are f32.
#ifndef LONGSPAN_KERNELS_NORMALIZATION_H_
#define LONGSPAN_KERNELS_NORMALIZATION_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// y = x * rstd * weight, rstd = 1/sqrt(mean(x^2) + eps). x, y: (rows, width); weight: (width);
// rstd: (rows), written.
void RmsNormForward(TensorView x, TensorView weight, float eps, TensorView y, TensorView rstd,
                    Stream& stream);
// dx += dL/dx, dweight += dL/dweight. x, weight, rstd as in the forward pass; dy, dx: (rows,
// width). dx may not be dy.
void RmsNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView rstd, TensorView dx,
                     TensorView dweight, Stream& stream);

// y = (x - mean) * rstd * weight + bias. mean, rstd: (rows), written.
void LayerNormForward(TensorView x, TensorView weight, TensorView bias, float eps, TensorView y,
                      TensorView mean, TensorView rstd, Stream& stream);
// dx, dweight, dbias accumulate.
void LayerNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView mean,
                       TensorView rstd, TensorView dx, TensorView dweight, TensorView dbias,
                       Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_NORMALIZATION_H_
