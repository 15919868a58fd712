// StreamMemory: device memory that operators use during their calls on one stream. It grows to what
// the largest call needs and is kept, so that a step allocates nothing once it has run.
#ifndef LONGSPAN_KERNELS_CUDA_STREAM_MEMORY_H_
#define LONGSPAN_KERNELS_CUDA_STREAM_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <mutex>
#include <vector>

#include "kernels/device/memory.h"
#include "kernels/gemm.h"

namespace longspan::cuda {

// Handed out from the front like a stack: work queued later may use the memory again, because the
// stream keeps the order. Not thread-safe but for mutex(), which a call holds.
class StreamMemory {
 public:
  // A place in the stack.
  struct Mark {
    size_t block = 0;
    int64_t used = 0;
  };

  StreamMemory(cudaStream_t stream, MemoryTable& table) : stream_(stream), table_(table) {}
  // The stream has no work any more, and may be gone.
  ~StreamMemory();
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;

  std::mutex& mutex() { return mutex_; }
  // 256-byte aligned, not initialised. In `taken`.
  cudaError_t Take(int64_t bytes, void** taken);
  Mark Now() const { return at_; }
  // Gives back what was taken since.
  void Return(const Mark& mark) { at_ = mark; }
  // At the end of a call: what came in several pieces will come in one from now on.
  void EndCall();

  // kMatrixProductBytes for matrix products, at the first call.
  cudaError_t MatrixProductWorkspace(void** workspace);
  static constexpr int64_t kMatrixProductBytes = kGpuGemmWorkspaceBytes;

 private:
  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
  };
  cudaError_t Grow(int64_t bytes);

  const cudaStream_t stream_;
  MemoryTable& table_;
  std::mutex mutex_;
  std::vector<Block> blocks_;
  Mark at_;
  int64_t wanted_ = 0;  // of the next block, at least
  void* matrix_products_ = nullptr;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_STREAM_MEMORY_H_
