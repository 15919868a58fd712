#include "kernels/device/cuda_memory.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"

namespace longspan {

absl::Status CudaStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  (void)cudaGetLastError();
  const std::string message = absl::StrCat("CUDA: ", call, ": ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

void CheckCuda(cudaError_t error) {
  LONGSPAN_CHECK(error == cudaSuccess, cudaGetErrorString(error));
}

CudaMemory::CudaMemory(int index) : index_(index) {
  CheckCuda(cudaSetDevice(index_));
  CheckCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  // What is given back stays in the pool: the next step wants it again.
  cudaMemPool_t pool = nullptr;
  CheckCuda(cudaDeviceGetDefaultMemPool(&pool, index_));
  uint64_t keep = UINT64_MAX;
  CheckCuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
}

CudaMemory::~CudaMemory() {
  (void)cudaSetDevice(index_);
  for (cudaStream_t stream : copy_streams_) (void)cudaStreamDestroy(stream);
  (void)cudaStreamSynchronize(stream_);
  (void)cudaStreamDestroy(stream_);
}

void* CudaMemory::Allocate(int64_t bytes, Placement placement) {
  constexpr int64_t kAlignment = 64;  // CUDA's own memory is aligned to 256
  if (placement == Placement::kHost) {
    return std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  }
  void* memory = nullptr;
  cudaError_t error = cudaSetDevice(index_);
  if (placement == Placement::kPinnedHost) {
    if (error == cudaSuccess) {
      error = cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocPortable);
    }
  } else {
    if (error == cudaSuccess) {
      error = cudaMallocAsync(&memory, static_cast<size_t>(bytes), stream_);
    }
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
  }
  if (error == cudaSuccess) return memory;
  (void)cudaGetLastError();
  return nullptr;
}

void CudaMemory::Free(void* memory, Placement placement) {
  if (placement == Placement::kHost) return std::free(memory);
  (void)cudaSetDevice(index_);
  if (placement == Placement::kPinnedHost) {
    (void)cudaFreeHost(memory);
  } else {
    (void)cudaFreeAsync(memory, stream_);
  }
}

absl::Status CudaMemory::Zero(void* memory, int64_t bytes, Placement placement) {
  if (placement != Placement::kDevice) {
    std::memset(memory, 0, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  cudaError_t error = cudaSetDevice(index_);
  if (error == cudaSuccess) {
    error = cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_);
  }
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
  return CudaStatus(error, "cudaMemsetAsync");
}

cudaStream_t CudaMemory::TakeCopyStream() {
  {
    std::lock_guard lock(mutex_);
    if (!copy_streams_.empty()) {
      const cudaStream_t stream = copy_streams_.back();
      copy_streams_.pop_back();
      return stream;
    }
  }
  int lowest = 0, highest = 0;
  CheckCuda(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  cudaStream_t stream = nullptr;
  CheckCuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, lowest));
  return stream;
}

absl::Status CudaMemory::Copy(const void* from, void* to, int64_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  absl::Status status = CudaStatus(cudaSetDevice(index_), "cudaSetDevice");
  if (!status.ok()) return status;
  const cudaStream_t stream = TakeCopyStream();
  status =
      CudaStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream),
                 "cudaMemcpyAsync");
  status.Update(CudaStatus(cudaStreamSynchronize(stream), "cudaStreamSynchronize"));
  std::lock_guard lock(mutex_);
  copy_streams_.push_back(stream);
  return status;
}

}  // namespace longspan
