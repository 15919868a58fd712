// CudnnSession: cuDNN opened for one GPU.
#ifndef LONGSPAN_KERNELS_CUDA_CUDNN_SESSION_H_
#define LONGSPAN_KERNELS_CUDA_CUDNN_SESSION_H_

#include <memory>
#include <mutex>

#include "kernels/cuda/cudnn_attention.h"

namespace longspan::cuda {

// `mutex` is held while a plan is run: the handle has one stream at a time.
struct CudnnSession {
  // For the GPU that is current on this thread.
  static absl::StatusOr<std::unique_ptr<CudnnSession>> Open();
  ~CudnnSession();

  const CudnnLibrary* library = nullptr;
  cudnnHandle_t handle = nullptr;
  std::mutex mutex;
  std::unique_ptr<AttentionPlanner> attention;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_CUDNN_SESSION_H_
