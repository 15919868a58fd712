// The CPU bodies of kernels/normalization.h: same arguments, already checked, run on the calling
// thread and `threads`.
#ifndef LONGSPAN_KERNELS_CPU_NORMALIZATION_H_
#define LONGSPAN_KERNELS_CPU_NORMALIZATION_H_

#include "kernels/device/tensor_view.h"
#include "kernels/device/thread_pool.h"

namespace longspan::cpu {

void RmsNormForward(TensorView x, TensorView weight, float eps, TensorView y, TensorView rstd,
                    ThreadPool& threads);
void RmsNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView rstd, TensorView dx,
                     TensorView dweight, ThreadPool& threads);
void LayerNormForward(TensorView x, TensorView weight, TensorView bias, float eps, TensorView y,
                      TensorView mean, TensorView rstd, ThreadPool& threads);
void LayerNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView mean,
                       TensorView rstd, TensorView dx, TensorView dweight, TensorView dbias,
                       ThreadPool& threads);

}  // namespace longspan::cpu

#endif  // LONGSPAN_KERNELS_CPU_NORMALIZATION_H_
