// kernels/elementwise.h on a CUDA stream; shapes and dtypes are checked.
#ifndef LONGSPAN_KERNELS_CUDA_ELEMENTWISE_CUH_
#define LONGSPAN_KERNELS_CUDA_ELEMENTWISE_CUH_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

cudaError_t CopyRowsOf(const TensorView& x, const TensorView& y, cudaStream_t stream);
// f32 and bf16 on either side.
cudaError_t ConvertRows(const TensorView& x, const TensorView& y, cudaStream_t stream);
cudaError_t AddRows(const TensorView& x, const TensorView& y, cudaStream_t stream);
cudaError_t AddBiasRows(const TensorView& bias, const TensorView& y, cudaStream_t stream);

// Floats of `partials` for column sums over `rows` rows.
int64_t ColumnSumPartials(int64_t rows, int64_t width);
// dbias += column sums of dy. Equal inputs give equal bits.
cudaError_t AddColumnSums(const TensorView& dy, const TensorView& dbias, float* partials,
                          cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_ELEMENTWISE_CUH_
