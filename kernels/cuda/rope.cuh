// kernels/rope.h on a CUDA stream; shapes and dtypes are checked.
#ifndef LONGSPAN_KERNELS_CUDA_ROPE_CUH_
#define LONGSPAN_KERNELS_CUDA_ROPE_CUH_

#include <cuda_runtime_api.h>

#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

constexpr int64_t kMostRopeHeadDim = 512;

// Rotates by the angles of the positions, or back with direction = -1.
cudaError_t RotateRows(const TensorView& x, const TensorView& positions, double base,
                       float direction, cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_ROPE_CUH_
