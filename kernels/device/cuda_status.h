// Errors of CUDA calls as absl::Status: the one place that words them. In builds with CUDA.
#ifndef LONGSPAN_KERNELS_DEVICE_CUDA_STATUS_H_
#define LONGSPAN_KERNELS_DEVICE_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"

namespace longspan {

// OK, or what failed in `call`. ResourceExhausted: no memory. Errors of kernels, which any later
// call may report and after which the process can use the GPU no longer, say so. Makes no CUDA
// call, so it serves callbacks of streams.
absl::Status DescribeCuda(cudaError_t error, const char* call);

// The same; the error is cleared, so that the next call does not report it again.
absl::Status CudaStatus(cudaError_t error, const char* call);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_CUDA_STATUS_H_
