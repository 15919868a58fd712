// CudaContext: what the CUDA operators keep with a device between calls: handles of the libraries,
// plans of attention and of matrix products, memory of streams. Thread-safe.
#ifndef LONGSPAN_KERNELS_CUDA_CONTEXT_H_
#define LONGSPAN_KERNELS_CUDA_CONTEXT_H_

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"

namespace longspan::cuda {

class MatrixProducts;
class StreamMemory;
struct CudnnSession;

class CudaContext {
 public:
  // That of the stream's device, made at the first call.
  static CudaContext& Of(const Stream& stream);
  CudaContext();
  ~CudaContext();

  // cuDNN for this device, opened at the first call. The GPU must be current on this thread.
  absl::StatusOr<CudnnSession*> Cudnn();
  // cuBLASLt, likewise.
  absl::StatusOr<MatrixProducts*> Products();
  // That of the stream, kept until the device goes.
  StreamMemory& MemoryOf(const Stream& stream);

 private:
  std::mutex mutex_;
  std::unique_ptr<CudnnSession> cudnn_;
  std::unique_ptr<MatrixProducts> products_;
  std::map<cudaStream_t, std::unique_ptr<StreamMemory>> memory_;
};

inline cudaStream_t Native(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

// The stream fails with `error` where there is one: later events and Synchronize() report it.
void Report(cudaError_t error, const char* call, Stream& stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_CONTEXT_H_
