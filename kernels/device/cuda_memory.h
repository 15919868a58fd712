// Memory of one GPU and pinned memory of its host, and copies that no stream of work waits for.
#ifndef LONGSPAN_KERNELS_DEVICE_CUDA_MEMORY_H_
#define LONGSPAN_KERNELS_DEVICE_CUDA_MEMORY_H_

#include <cuda_runtime_api.h>

#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/memory.h"

namespace longspan {

// OK, or what failed in `call`; the error is cleared, so that the next call does not report it
// again.
absl::Status CudaStatus(cudaError_t error, const char* call);

// A check fails where a call fails that has no reason to.
void CheckCuda(cudaError_t error);

// Thread-safe. Device memory comes from the driver's pool in the order of a stream of its own, and
// goes back to it: unlike cudaMalloc and cudaFree that stops no other stream, which may be waiting
// for the very thread that allocates.
class CudaMemory : public MemorySource {
 public:
  // Of GPU `index`.
  explicit CudaMemory(int index);
  ~CudaMemory() override;
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  void* Allocate(int64_t bytes, Placement placement) override;
  void Free(void* memory, Placement placement) override;
  absl::Status Zero(void* memory, int64_t bytes, Placement placement) override;

  // See Device::CopyNow. Callers do not wait for each other.
  absl::Status Copy(const void* from, void* to, int64_t bytes);

 private:
  cudaStream_t TakeCopyStream();

  const int index_;
  cudaStream_t stream_ = nullptr;
  std::mutex mutex_;
  std::vector<cudaStream_t> copy_streams_;  // idle, of low priority
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_CUDA_MEMORY_H_
