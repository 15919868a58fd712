#include "kernels/cuda/cublaslt_library.h"

#include <dlfcn.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace longspan::cuda {
namespace {

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

absl::StatusOr<const CublasLtLibrary*> LoadOnce() {
  const std::string name = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  void* const opened = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "matrix products on a GPU need cuBLASLt ", CUBLAS_VER_MAJOR, ", which cannot be loaded (",
        dlerror(), "); install it, or name its folder in LD_LIBRARY_PATH"));
  }
  static CublasLtLibrary library;
  if (!Find(opened, "cublasLtGetVersion", library.get_version) ||
      !Find(opened, "cublasLtGetStatusString", library.get_status_string) ||
      !Find(opened, "cublasLtCreate", library.create) ||
      !Find(opened, "cublasLtDestroy", library.destroy) ||
      !Find(opened, "cublasLtMatmulDescCreate", library.create_operation) ||
      !Find(opened, "cublasLtMatmulDescDestroy", library.destroy_operation) ||
      !Find(opened, "cublasLtMatmulDescSetAttribute", library.set_operation) ||
      !Find(opened, "cublasLtMatrixLayoutCreate", library.create_layout) ||
      !Find(opened, "cublasLtMatrixLayoutDestroy", library.destroy_layout) ||
      !Find(opened, "cublasLtMatmulPreferenceCreate", library.create_preference) ||
      !Find(opened, "cublasLtMatmulPreferenceDestroy", library.destroy_preference) ||
      !Find(opened, "cublasLtMatmulPreferenceSetAttribute", library.set_preference) ||
      !Find(opened, "cublasLtMatmulAlgoGetHeuristic", library.get_heuristic) ||
      !Find(opened, "cublasLtMatmul", library.matmul)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the ", name, " that was loaded lacks functions of cuBLASLt"));
  }
  return &library;
}

}  // namespace

absl::StatusOr<const CublasLtLibrary*> CublasLtLibrary::Load() {
  static const absl::StatusOr<const CublasLtLibrary*> loaded = LoadOnce();
  return loaded;
}

absl::Status CublasLtLibrary::Check(cublasStatus_t status, const char* call) const {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text = absl::StrCat("cuBLASLt: ", call, ": ", get_status_string(status));
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return absl::UnimplementedError(text);
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

}  // namespace longspan::cuda
