// kernels/embedding.h on a CUDA stream; shapes and dtypes are checked. An id outside the table
// makes the stream fail.
#ifndef LONGSPAN_KERNELS_CUDA_EMBEDDING_CUH_
#define LONGSPAN_KERNELS_CUDA_EMBEDDING_CUH_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

cudaError_t LookUpRows(const TensorView& ids, const TensorView& table, bool accumulate,
                       const TensorView& out, cudaStream_t stream);
// Rows of one id are summed in one order, whatever the GPU: in pieces of 64, each in row order, and
// these one after the other. Work grows with the rows, times the digits of the ids. `memory`:
// device memory of AddToTableBytes(), 16-byte aligned.
int64_t AddToTableBytes(int64_t rows, int64_t width);
cudaError_t AddToTable(const TensorView& ids, const TensorView& dout, const TensorView& dtable,
                       char* memory, cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_EMBEDDING_CUH_
