// The entry points of cuBLASLt that we call, looked up at run time: a program built with CUDA
// starts on a machine without it, and says so only where a matrix product runs on a GPU.
#ifndef LONGSPAN_KERNELS_CUDA_CUBLASLT_LIBRARY_H_
#define LONGSPAN_KERNELS_CUDA_CUBLASLT_LIBRARY_H_

#include <cublasLt.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longspan::cuda {

// Immutable and thread-safe. Never unloaded.
struct CublasLtLibrary {
  // FailedPrecondition where the library of the major version that we were compiled for is missing.
  static absl::StatusOr<const CublasLtLibrary*> Load();

  // OK, or the error of `call`.
  absl::Status Check(cublasStatus_t status, const char* call) const;

  decltype(&cublasLtGetVersion) get_version = nullptr;
  decltype(&cublasLtGetStatusString) get_status_string = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmulDescCreate) create_operation = nullptr;
  decltype(&cublasLtMatmulDescDestroy) destroy_operation = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_operation = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) get_heuristic = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_CUBLASLT_LIBRARY_H_
