// Scratch: device memory of one operator's call, from the memory pool of its stream.
#ifndef LONGSPAN_KERNELS_CUDA_SCRATCH_H_
#define LONGSPAN_KERNELS_CUDA_SCRATCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <utility>

#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

// Move-only. Given back in stream order: work queued before it goes may use it.
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(cudaStream_t stream) : stream_(stream) {}
  ~Scratch() {
    if (memory_ != nullptr) (void)cudaFreeAsync(memory_, stream_);
  }
  Scratch(Scratch&& other) noexcept
      : stream_(other.stream_), memory_(std::exchange(other.memory_, nullptr)) {}
  Scratch& operator=(Scratch&& other) noexcept {
    std::swap(stream_, other.stream_);
    std::swap(memory_, other.memory_);
    return *this;
  }

  // Once. 256-byte aligned, not initialised.
  cudaError_t Allocate(int64_t bytes) {
    return bytes == 0 ? cudaSuccess
                      : cudaMallocAsync(&memory_, static_cast<size_t>(bytes), stream_);
  }
  void* data() const { return memory_; }

 private:
  cudaStream_t stream_ = nullptr;
  void* memory_ = nullptr;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_SCRATCH_H_
