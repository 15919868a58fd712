// The one place that launches kernels and names the shared memory of a launch, so that tests can
// put another execution of the same kernels in its place (tests/gpu/stand_in).
#ifndef LONGSPAN_KERNELS_CUDA_LAUNCH_CUH_
#define LONGSPAN_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstddef>

namespace longspan::cuda {

// Queues `kernel` on the stream. Arguments become the kernel's parameters by conversion. The error
// is that of the launch; one inside the kernel shows when the stream is synchronised.
template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// The `shared_bytes` of the launch, 16-byte aligned: one array for all threads of a block.
__device__ inline char* LaunchShared() {
  extern __shared__ uint4 longspan_launch_shared[];
  return reinterpret_cast<char*>(longspan_launch_shared);
}

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_LAUNCH_CUH_
