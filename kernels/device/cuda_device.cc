#include "kernels/device/cuda_device.h"

#ifdef LONGSPAN_HAVE_CUDA

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/cuda_memory.h"
#include "kernels/device/cuda_status.h"
#include "kernels/device/cuda_stream.h"

namespace longspan {

class CudaDevice : public Device {
 public:
  CudaDevice(int index, const cudaDeviceProp& properties, int threads, const CudaWords& words,
             std::unique_ptr<CudaMemory> source)
      : description_(absl::StrCat("cuda ", index, ", ", properties.name, ", ",
                                  properties.totalGlobalMem >> 30, " GiB")),
        threads_(threads),
        source_(std::move(source)),
        memory_(*source_),
        streams_(index, *source_, words) {}

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string description() const override { return description_; }
  ThreadPool& threads() override { return threads_; }
  MemoryTable& memory() override { return memory_; }
  absl::Status CopyNow(const void* from, void* to, int64_t bytes) override {
    return source_->Copy(from, to, bytes);
  }
  void CollectTrace() override {
    if (trace() == nullptr) return;
    {
      const std::lock_guard lock(streams_.mutex);
      for (CudaStreamState* stream : streams_.alive) stream->CollectTrace(*trace());
    }
    streams_.clock.Renew();
  }

 private:
  Stream MakeStream(const std::string& name, StreamPriority priority) override {
    return Stream(std::make_unique<CudaStreamState>(*this, streams_, name, priority));
  }

  const std::string description_;
  ThreadPool threads_;
  const std::unique_ptr<CudaMemory> source_;
  MemoryTable memory_;
  CudaStreams streams_;
};

int CountGpus() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();
  return 0;
}

namespace {

// At least one, or why there is none.
absl::StatusOr<int> UsableGpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  (void)cudaGetLastError();
  return absl::FailedPreconditionError(absl::StrCat(
      "no GPU can be used (", error == cudaSuccess ? "none found" : cudaGetErrorString(error),
      "); see what nvidia-smi says, or run with device = \"cpu\""));
}

template <typename Function>
absl::Status FindDriverFunction(const char* name, Function& function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  absl::Status status =
      CudaStatus(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result),
                 "cudaGetDriverEntryPointByVersion");
  if (status.ok() && result != cudaDriverEntryPointSuccess)
    status = absl::FailedPreconditionError("the CUDA driver is too old: 12.0 is the least served");
  function = reinterpret_cast<Function>(found);
  return status;
}

std::string VersionText(int version) {
  return version == 0 ? "" : absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

absl::StatusOr<std::vector<GpuFacts>> FindGpus() {
  const absl::StatusOr<int> count = UsableGpus();
  if (!count.ok()) return count.status();
  std::vector<GpuFacts> gpus;
  for (int index = 0; index < *count; ++index) {
    cudaDeviceProp properties;
    absl::Status status =
        CudaStatus(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    char bus[32] = "";
    status.Update(
        CudaStatus(cudaDeviceGetPCIBusId(bus, sizeof(bus), index), "cudaDeviceGetPCIBusId"));
    if (!status.ok()) return status;
    GpuFacts gpu{
        properties.name,  bus, static_cast<int64_t>(properties.totalGlobalMem), properties.major,
        properties.minor, {}};
    for (int peer = 0; peer < *count; ++peer) {
      int reaches = 0;
      if (peer != index && cudaDeviceCanAccessPeer(&reaches, index, peer) == cudaSuccess &&
          reaches != 0) {
        gpu.peers.push_back(peer);
      }
    }
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

CudaVersions FindCudaVersions() {
  int runtime = 0, driver = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  (void)cudaDriverGetVersion(&driver);
  (void)cudaGetLastError();
  return {VersionText(runtime), VersionText(driver)};
}

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int index, int threads) {
  const absl::StatusOr<int> usable = UsableGpus();
  if (!usable.ok()) return usable.status();
  const int count = *usable;
  if (index < 0 || index >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("GPU ", index, " was asked for, but there are ", count, "; the first is 0"));
  }
  cudaDeviceProp properties;
  absl::Status status =
      CudaStatus(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  if (!status.ok()) return status;
  if (properties.major < 8) {
    return absl::FailedPreconditionError(
        absl::StrCat("GPU ", index, " (", properties.name, ") has compute capability ",
                     properties.major, ".", properties.minor, "; 8.0 is the least that is served"));
  }
  status = CudaStatus(cudaSetDevice(index), "cudaSetDevice");
  if (!status.ok()) return status;
  CudaWords words;
  status = FindDriverFunction("cuStreamWaitValue32", words.wait);
  status.Update(FindDriverFunction("cuStreamWriteValue32", words.write));
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<CudaMemory>> memory = CudaMemory::Open(index);
  if (!memory.ok()) return memory.status();
  return std::make_unique<CudaDevice>(index, properties, threads, words, *std::move(memory));
}

}  // namespace longspan

#else  // LONGSPAN_HAVE_CUDA

namespace longspan {

int CountGpus() { return 0; }

absl::StatusOr<std::vector<GpuFacts>> FindGpus() { return OpenCuda(0, 1).status(); }

CudaVersions FindCudaVersions() { return {}; }

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int, int) {
  return absl::UnimplementedError(
      "this program was built without CUDA; build it with -DLONGSPAN_CUDA=ON, or run with device = "
      "\"cpu\"");
}

}  // namespace longspan

#endif  // LONGSPAN_HAVE_CUDA
