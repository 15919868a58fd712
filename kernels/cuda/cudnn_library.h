// The entry points of cuDNN that we call, looked up at run time: a program built with CUDA starts
// on a machine without cuDNN, and says so only where attention runs on a GPU.
#ifndef LONGSPAN_KERNELS_CUDA_CUDNN_LIBRARY_H_
#define LONGSPAN_KERNELS_CUDA_CUDNN_LIBRARY_H_

#include <cudnn.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace longspan::cuda {

// Immutable and thread-safe. Never unloaded.
struct CudnnLibrary {
  // FailedPrecondition where the library is missing, of another major version than it was compiled
  // for, too old, or one of those that give wrong answers.
  static absl::StatusOr<const CudnnLibrary*> Load();

  // OK, or the error of `call` with what cuDNN says about it on this thread.
  absl::Status Check(cudnnStatus_t status, const char* call) const;

  int64_t version = 0;  // 91900
  decltype(&cudnnGetVersion) get_version = nullptr;
  decltype(&cudnnGetLastErrorString) get_last_error = nullptr;
  decltype(&cudnnCreate) create = nullptr;
  decltype(&cudnnDestroy) destroy = nullptr;
  decltype(&cudnnSetStream) set_stream = nullptr;
  decltype(&cudnnBackendCreateDescriptor) create_descriptor = nullptr;
  decltype(&cudnnBackendDestroyDescriptor) destroy_descriptor = nullptr;
  decltype(&cudnnBackendFinalize) finalize = nullptr;
  decltype(&cudnnBackendSetAttribute) set_attribute = nullptr;
  decltype(&cudnnBackendGetAttribute) get_attribute = nullptr;
  decltype(&cudnnBackendExecute) execute = nullptr;
};

// Why a version is refused; empty for one that is served.
std::string WhyCudnnIsRefused(int64_t version);
// 91900 -> "9.19.0".
std::string CudnnVersionText(int64_t version);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_CUDNN_LIBRARY_H_
