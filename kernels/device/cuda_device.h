// The CUDA back end of Device: streams are CUDA streams, operators with a CUDA body run there.
//
// Differences from a CPU stream: Launch and LaunchFallible are not served (a check fails: that
// operator has no CUDA body), and work behind a failed event is not skipped; the failure is still
// what events recorded later and Synchronize() report. RunOnHost has a thread of its own, beside
// the stream. Streams wait for each other's events on the GPU: see README.md.
#ifndef LONGSPAN_KERNELS_DEVICE_CUDA_DEVICE_H_
#define LONGSPAN_KERNELS_DEVICE_CUDA_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"

namespace longspan {

// Opens GPU `index` of this process, with `threads` >= 1 host threads beside it. Unimplemented in a
// build without CUDA, FailedPrecondition without a driver, a GPU or one of compute capability 8.0,
// InvalidArgument for an index beyond the last.
absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int index, int threads = 1);

// GPUs that this process sees; 0 without CUDA or a driver.
int CountGpus();

struct GpuFacts {
  std::string name;
  std::string bus;  // "0000:65:00.0"
  int64_t memory_bytes = 0;
  int major = 0, minor = 0;  // compute capability
  std::vector<int> peers;    // GPUs whose memory it reaches by itself
};
// Of the GPUs that this process sees. The errors of OpenCuda.
absl::StatusOr<std::vector<GpuFacts>> FindGpus();

// "13.0" each: of the runtime that is linked, and the newest that the driver serves; empty where
// there is none.
struct CudaVersions {
  std::string runtime, driver;
};
CudaVersions FindCudaVersions();

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_CUDA_DEVICE_H_
