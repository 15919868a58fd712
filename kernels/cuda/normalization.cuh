// RMSNorm on a CUDA stream: raw pointers to device memory, FP32. Every function launches and
// returns at once; the error is that of the launch (an error inside a kernel shows when the stream
// is synchronised).
#ifndef LONGSPAN_KERNELS_CUDA_NORMALIZATION_CUH_
#define LONGSPAN_KERNELS_CUDA_NORMALIZATION_CUH_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace longspan::cuda {

// Rows of a matrix, `stride` floats apart.
struct RowsView {
  float* data;
  int64_t stride;
};

// As kernels/normalization.h says. x, y: (rows, width); weight: (width); rstd: (rows), written.
cudaError_t RmsNormForward(RowsView x, const float* weight, int64_t rows, int64_t width, float eps,
                           RowsView y, float* rstd, cudaStream_t stream);

// dx and dweight accumulate. Takes up to 64 * width floats from the stream's memory pool for
// partial sums and gives them back in stream order. Equal inputs give equal bits.
cudaError_t RmsNormBackward(RowsView dy, RowsView x, const float* weight, const float* rstd,
                            int64_t rows, int64_t width, RowsView dx, float* dweight,
                            cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_NORMALIZATION_CUH_
