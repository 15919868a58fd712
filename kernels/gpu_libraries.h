// The libraries that operators on a GPU load when they are first needed, for reports and for a
// choice of device: what would be loaded, or what is wrong with it.
#ifndef LONGSPAN_KERNELS_GPU_LIBRARIES_H_
#define LONGSPAN_KERNELS_GPU_LIBRARIES_H_

#include <string>

#include "absl/status/statusor.h"

namespace longspan {

// "9.19.0", "13.1.0". FailedPrecondition as the operators would give it; Unimplemented in a build
// without CUDA.
absl::StatusOr<std::string> CudnnVersion();
absl::StatusOr<std::string> CublasLtVersion();

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_GPU_LIBRARIES_H_
