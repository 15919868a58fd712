// kernels/embedding.h on a CUDA stream; shapes and dtypes are checked. An id outside the table
// makes the stream fail.
#ifndef LONGSPAN_KERNELS_CUDA_EMBEDDING_CUH_
#define LONGSPAN_KERNELS_CUDA_EMBEDDING_CUH_

#include <cuda_runtime_api.h>

#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

cudaError_t LookUpRows(const TensorView& ids, const TensorView& table, bool accumulate,
                       const TensorView& out, cudaStream_t stream);
// Sums in row order, whatever the GPU. Comparisons grow with the square of the rows: 64K of them
// take as long as some matrix product of a layer.
cudaError_t AddToTable(const TensorView& ids, const TensorView& dout, const TensorView& dtable,
                       cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_EMBEDDING_CUH_
