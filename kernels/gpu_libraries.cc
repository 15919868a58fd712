#include "kernels/gpu_libraries.h"

#include "absl/strings/str_cat.h"
#ifdef LONGSPAN_HAVE_CUDA
#include "kernels/cuda/cublaslt_library.h"
#include "kernels/cuda/cudnn_library.h"
#endif

namespace longspan {

#ifdef LONGSPAN_HAVE_CUDA
absl::StatusOr<std::string> CudnnVersion() {
  const absl::StatusOr<const cuda::CudnnLibrary*> library = cuda::CudnnLibrary::Load();
  if (!library.ok()) return library.status();
  return cuda::CudnnVersionText((*library)->version);
}

absl::StatusOr<std::string> CublasLtVersion() {
  const absl::StatusOr<const cuda::CublasLtLibrary*> library = cuda::CublasLtLibrary::Load();
  if (!library.ok()) return library.status();
  const size_t version = (*library)->get_version();
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}
#else
absl::StatusOr<std::string> CudnnVersion() {
  return absl::UnimplementedError("this program was built without CUDA");
}

absl::StatusOr<std::string> CublasLtVersion() {
  return absl::UnimplementedError("this program was built without CUDA");
}
#endif

}  // namespace longspan
