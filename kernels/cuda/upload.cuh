// Small host values to device memory as parameters of launches: a copy from memory that is not
// pinned might make the calling thread wait.
#ifndef LONGSPAN_KERNELS_CUDA_UPLOAD_CUH_
#define LONGSPAN_KERNELS_CUDA_UPLOAD_CUH_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace longspan::cuda {

// `source` may go when this returns. `target` has room for whole 8-byte words.
cudaError_t UploadBytes(const void* source, int64_t bytes, void* target, cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_UPLOAD_CUH_
