// Call: one operator's call on a CUDA stream: its memory, and the first error, after which nothing
// more is queued and the stream fails.
#ifndef LONGSPAN_KERNELS_CUDA_CALL_H_
#define LONGSPAN_KERNELS_CUDA_CALL_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/stream_memory.h"
#include "kernels/cuda/upload.cuh"
#include "kernels/device/cuda_status.h"
#include "kernels/device/stream.h"

namespace longspan::cuda {

// One at a time on a stream: others wait until it goes. Memory is taken back then, in stream order.
class Call {
 public:
  explicit Call(Stream& stream)
      : stream_(stream),
        native_(Native(stream)),
        memory_(CudaContext::Of(stream).MemoryOf(stream)),
        lock_(memory_.mutex()) {}
  ~Call() {
    memory_.EndCall();
    if (!status_.ok()) stream_.Fail(status_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // What is allocated while this lives is taken back when it goes.
  class Part {
   public:
    explicit Part(Call& call) : memory_(call.memory_), mark_(memory_.Now()) {}
    ~Part() { memory_.Return(mark_); }
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

   private:
    StreamMemory& memory_;
    const StreamMemory::Mark mark_;
  };

  bool ok() const { return status_.ok(); }
  void Update(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  void Update(cudaError_t error, const char* what) {
    if (error != cudaSuccess) Update(CudaStatus(error, what));
  }
  cudaStream_t native() const { return native_; }
  Stream& stream() const { return stream_; }

  // Not initialised; nullptr where nothing was given.
  template <typename T>
  T* Allocate(int64_t elements) {
    if (!ok() || elements == 0) return nullptr;
    void* taken = nullptr;
    Update(memory_.Take(elements * static_cast<int64_t>(sizeof(T)), &taken),
           "memory for an operator");
    return static_cast<T*>(taken);
  }

  // StreamMemory::kMatrixProductBytes, apart from what is allocated.
  void* MatrixProductWorkspace() {
    void* workspace = nullptr;
    if (ok()) Update(memory_.MatrixProductWorkspace(&workspace), "memory for matrix products");
    return workspace;
  }

  // A copy on the GPU of what `values` holds now. The values travel with launches, so that nobody
  // waits and nothing is pinned.
  template <typename T>
  T* Upload(const std::vector<T>& values) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(T));
    T* const at = reinterpret_cast<T*>(Allocate<uint64_t>((bytes + 7) / 8));
    if (at != nullptr)
      Update(UploadBytes(values.data(), bytes, at, native_), "the upload of an operator's numbers");
    return at;
  }

 private:
  Stream& stream_;
  const cudaStream_t native_;
  StreamMemory& memory_;
  std::lock_guard<std::mutex> lock_;
  absl::Status status_;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_CALL_H_
