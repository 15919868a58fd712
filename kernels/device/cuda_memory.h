// Memory of one GPU and pinned memory of its host, and copies that no stream of work waits for.
#ifndef LONGSPAN_KERNELS_DEVICE_CUDA_MEMORY_H_
#define LONGSPAN_KERNELS_DEVICE_CUDA_MEMORY_H_

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"

namespace longspan {

// Thread-safe. Nothing here waits for the work of streams, which may wait for the very thread that
// allocates: device memory comes from the driver's pool, in the order of a stream of its own, and
// goes back to it; pinned memory is kept for the next request and unpinned at the end.
class CudaMemory : public MemorySource {
 public:
  // Of GPU `index`, which is current then.
  static absl::StatusOr<std::unique_ptr<CudaMemory>> Open(int index);
  ~CudaMemory() override;
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  void* Allocate(int64_t bytes, Placement placement) override;
  void Free(void* memory, Placement placement) override;
  absl::Status Zero(void* memory, int64_t bytes, Placement placement) override;
  std::string WhatIsLeft(Placement placement) override;

  // See Device::CopyNow. Callers do not wait for each other.
  absl::Status Copy(const void* from, void* to, int64_t bytes);

 private:
  explicit CudaMemory(int index) : index_(index) {}
  absl::StatusOr<cudaStream_t> TakeCopyStream();
  // nullptr where none is free.
  void* TakePinned(int64_t bytes);

  const int index_;
  cudaStream_t stream_ = nullptr;
  std::mutex mutex_;
  std::vector<cudaStream_t> copy_streams_;     // idle, of low priority
  std::map<void*, int64_t> pinned_;            // all of it, with its bytes
  std::multimap<int64_t, void*> free_pinned_;  // by bytes
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_CUDA_MEMORY_H_
