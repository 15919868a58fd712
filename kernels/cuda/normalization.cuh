// RMSNorm and LayerNorm on a CUDA stream, as kernels/normalization.h says; shapes and dtypes are
// checked. Every function launches and returns at once; the error is that of a launch.
#ifndef LONGSPAN_KERNELS_CUDA_NORMALIZATION_CUH_
#define LONGSPAN_KERNELS_CUDA_NORMALIZATION_CUH_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

// RMSNorm where `bias` and `mean` are empty (default-constructed), else LayerNorm.
cudaError_t NormForward(const TensorView& x, const TensorView& weight, const TensorView& bias,
                        float eps, const TensorView& y, const TensorView& mean,
                        const TensorView& rstd, cudaStream_t stream);

// Floats of `partials` that a backward pass over `rows` rows wants.
int64_t NormPartials(int64_t rows, int64_t width, bool with_bias);

// RMSNorm where `mean` and `dbias` are empty. Reads dy and x once. Equal inputs give equal bits.
cudaError_t NormBackward(const TensorView& dy, const TensorView& x, const TensorView& weight,
                         const TensorView& mean, const TensorView& rstd, const TensorView& dx,
                         const TensorView& dweight, const TensorView& dbias, float* partials,
                         cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_NORMALIZATION_CUH_
