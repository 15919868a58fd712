#include "kernels/device/cuda_memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/device/cuda_status.h"

namespace longspan {

absl::StatusOr<std::unique_ptr<CudaMemory>> CudaMemory::Open(int index) {
  auto memory = std::unique_ptr<CudaMemory>(new CudaMemory(index));
  absl::Status status =
      CudaStatus(cudaStreamCreateWithFlags(&memory->stream_, cudaStreamNonBlocking),
                 "cudaStreamCreateWithFlags");
  // What is given back stays in the pool: the next step wants it again.
  cudaMemPool_t pool = nullptr;
  uint64_t keep = UINT64_MAX;
  status.Update(
      CudaStatus(cudaDeviceGetDefaultMemPool(&pool, index), "cudaDeviceGetDefaultMemPool"));
  if (!status.ok()) return status;
  status = CudaStatus(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
                      "cudaMemPoolSetAttribute");
  if (!status.ok()) return status;
  return memory;
}

CudaMemory::~CudaMemory() {
  if (stream_ == nullptr) return;
  (void)cudaSetDevice(index_);
  for (cudaStream_t stream : copy_streams_) (void)cudaStreamDestroy(stream);
  for (const auto& [memory, bytes] : pinned_) (void)cudaFreeHost(memory);
  (void)cudaStreamSynchronize(stream_);
  (void)cudaStreamDestroy(stream_);
}

void* CudaMemory::Allocate(int64_t bytes, Placement placement) {
  constexpr int64_t kAlignment = 64;  // CUDA's own memory is aligned to 256
  if (placement == Placement::kHost) {
    return std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  }
  const bool pinned = placement == Placement::kPinnedHost;
  void* memory = pinned ? TakePinned(bytes) : nullptr;
  if (memory != nullptr) return memory;
  cudaError_t error = cudaSetDevice(index_);
  if (error == cudaSuccess && pinned) {
    error = cudaHostAlloc(&memory, static_cast<size_t>(bytes),
                          cudaHostAllocPortable | cudaHostAllocMapped);
  } else if (error == cudaSuccess) {
    error = cudaMallocAsync(&memory, static_cast<size_t>(bytes), stream_);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
  }
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    return nullptr;
  }
  if (pinned) {
    std::lock_guard lock(mutex_);
    pinned_[memory] = bytes;
  }
  return memory;
}

void* CudaMemory::TakePinned(int64_t bytes) {
  std::lock_guard lock(mutex_);
  const auto found = free_pinned_.lower_bound(bytes);
  // A much larger block would be missing elsewhere.
  if (found == free_pinned_.end() || found->first > 2 * std::max<int64_t>(bytes, 4096)) {
    return nullptr;
  }
  void* const memory = found->second;
  free_pinned_.erase(found);
  return memory;
}

void CudaMemory::Free(void* memory, Placement placement) {
  if (placement == Placement::kHost) return std::free(memory);
  if (placement == Placement::kPinnedHost) {
    std::lock_guard lock(mutex_);
    free_pinned_.emplace(pinned_.at(memory), memory);
    return;
  }
  (void)cudaSetDevice(index_);
  (void)cudaFreeAsync(memory, stream_);
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

std::string CudaMemory::WhatIsLeft(Placement placement) {
  if (placement != Placement::kDevice)
    return placement == Placement::kPinnedHost ? "the host gives no more pinned memory" : "";
  size_t left = 0, total = 0;
  absl::Status status = CudaStatus(cudaSetDevice(index_), "cudaSetDevice");
  if (status.ok()) status = CudaStatus(cudaMemGetInfo(&left, &total), "cudaMemGetInfo");
  if (!status.ok()) return std::string(status.message());
  return absl::StrCat("the GPU has ", left, " of ", total, " bytes left");
}

absl::StatusOr<cudaStream_t> CudaMemory::TakeCopyStream() {
  {
    std::lock_guard lock(mutex_);
    if (!copy_streams_.empty()) {
      const cudaStream_t stream = copy_streams_.back();
      copy_streams_.pop_back();
      return stream;
    }
  }
  int lowest = 0, highest = 0;
  absl::Status status = CudaStatus(cudaDeviceGetStreamPriorityRange(&lowest, &highest),
                                   "cudaDeviceGetStreamPriorityRange");
  if (!status.ok()) return status;
  cudaStream_t stream = nullptr;
  status = CudaStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, lowest),
                      "cudaStreamCreateWithPriority");
  if (!status.ok()) return status;
  return stream;
}

absl::Status CudaMemory::Copy(const void* from, void* to, int64_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  absl::Status status = CudaStatus(cudaSetDevice(index_), "cudaSetDevice");
  if (!status.ok()) return status;
  const absl::StatusOr<cudaStream_t> stream = TakeCopyStream();
  if (!stream.ok()) return stream.status();
  status =
      CudaStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, *stream),
                 "cudaMemcpyAsync");
  status.Update(CudaStatus(cudaStreamSynchronize(*stream), "cudaStreamSynchronize"));
  std::lock_guard lock(mutex_);
  copy_streams_.push_back(*stream);
  return status;
}

}  // namespace longspan
