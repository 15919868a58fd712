#include "kernels/device/cuda_status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

// Errors that a kernel leaves behind: all later calls of the process return them.
bool EndsUseOfTheGpu(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::Status DescribeCuda(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  std::string message = absl::StrCat("CUDA: ", call, ": ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(message);
  if (EndsUseOfTheGpu(error)) {
    absl::StrAppend(&message,
                    ", in work that was queued before; the GPU is lost to this process. If it "
                    "happens again, see what dmesg says of the GPU (Xid), and what "
                    "compute-sanitizer finds");
  }
  return absl::InternalError(message);
}

absl::Status CudaStatus(cudaError_t error, const char* call) {
  if (error != cudaSuccess) (void)cudaGetLastError();
  return DescribeCuda(error, call);
}

}  // namespace longspan
