// SwiGLU and GELU on a CUDA stream, as kernels/activation.h says; shapes and dtypes are checked.
#ifndef LONGSPAN_KERNELS_CUDA_ACTIVATION_CUH_
#define LONGSPAN_KERNELS_CUDA_ACTIVATION_CUH_

#include <cuda_runtime_api.h>

#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

cudaError_t SwiGluForwardRows(const TensorView& gate_up, const TensorView& y, cudaStream_t stream);
cudaError_t SwiGluBackwardRows(const TensorView& dy, const TensorView& gate_up,
                               const TensorView& dgate_up, cudaStream_t stream);
cudaError_t GeluForwardRows(const TensorView& x, const TensorView& y, cudaStream_t stream);
cudaError_t GeluBackwardRows(const TensorView& dy, const TensorView& x, const TensorView& dx,
                             cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_ACTIVATION_CUH_
