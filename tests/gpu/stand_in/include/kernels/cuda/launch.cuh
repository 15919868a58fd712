// Stands in for kernels/cuda/launch.cuh where the files of kernels/cuda are compiled for the CPU:
// the same functions, and the words of CUDA C++ that those files use.
#ifndef LONGSPAN_TESTS_GPU_STAND_IN_KERNELS_CUDA_LAUNCH_CUH_
#define LONGSPAN_TESTS_GPU_STAND_IN_KERNELS_CUDA_LAUNCH_CUH_

#include "device_language.h"
// The words above have to be known first.
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

#include "grid.h"

namespace longspan::cuda {

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Arguments... arguments) {
  return stand_in::LaunchGrid(grid, block, shared_bytes, stream,
                              [=] { kernel(static_cast<Parameters>(arguments)...); });
}

inline char* LaunchShared() { return stand_in::LaunchShared(); }

}  // namespace longspan::cuda

#endif  // LONGSPAN_TESTS_GPU_STAND_IN_KERNELS_CUDA_LAUNCH_CUH_
