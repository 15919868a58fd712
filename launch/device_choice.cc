#include "launch/device_choice.h"

#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device/cuda_device.h"
#include "kernels/gpu_libraries.h"
#include "parallel/transport/staged_transport.h"
#include "runtime/train/agreement.h"

namespace longspan {
namespace {

// Between ranks with a GPU each. `why_staged`: why it is not NCCL; empty where it is.
absl::StatusOr<std::unique_ptr<Transport>> OpenGpuTransport(Transport& host, Device& device,
                                                            const NcclOptions& nccl_options,
                                                            std::string* why_staged) {
  absl::StatusOr<std::unique_ptr<Transport>> nccl = OpenNcclTransport(host, device, nccl_options);
  if (nccl.ok() || !absl::IsFailedPrecondition(nccl.status())) return nccl;
  *why_staged = std::string(nccl.status().message());
  return MakeStagedTransport(host, device, {.threads = device.threads().threads()});
}

}  // namespace

void SayWhyCpu(const DeviceChoice& choice) {
  if (choice.why_cpu.empty()) return;
  std::fprintf(stderr, "longspan: on CPUs: %s\n", choice.why_cpu.c_str());
}

absl::StatusOr<DeviceChoice> OpenDevice(const std::string& wanted, int rank_on_node, int threads) {
  DeviceChoice choice;
  if (wanted != "cpu") {
    const int gpus = CountGpus();
    absl::StatusOr<std::unique_ptr<Device>> gpu =
        OpenCuda(gpus > 0 ? rank_on_node % gpus : 0, threads);
    // What the first step would miss.
    for (const auto& version : {CublasLtVersion(), CudnnVersion()}) {
      if (gpu.ok() && !version.ok()) gpu = version.status();
    }
    if (gpu.ok()) {
      choice.device = *std::move(gpu);
      return choice;
    }
    if (wanted == "cuda") {
      return absl::Status(gpu.status().code(),
                          absl::StrCat("run.device = \"cuda\": ", gpu.status().message()));
    }
    // Nobody misses a GPU on a machine that has none.
    if (gpus > 0) choice.why_cpu = std::string(gpu.status().message());
  }
  choice.device = Device::OpenCpu(threads);
  return choice;
}

absl::StatusOr<DeviceChoice> AgreeOnDevice(const std::string& wanted, int threads,
                                           Transport& transport) {
  absl::StatusOr<DeviceChoice> mine = OpenDevice(wanted, transport.rank_on_node(), threads);
  if (absl::Status status = Agree(transport, mine.status()); !status.ok()) return status;
  const bool gpu = mine->device->kind() == DeviceKind::kCuda;
  const absl::StatusOr<std::vector<std::string>> reasons =
      transport.AllGatherBytes(gpu ? "" : absl::StrCat("-", mine->why_cpu));
  if (!reasons.ok()) return reasons.status();
  for (int rank = 0; rank < transport.size(); ++rank) {
    const std::string& reason = (*reasons)[rank];
    if (reason.empty() || !gpu) continue;
    mine->device = Device::OpenCpu(threads);
    mine->why_cpu = absl::StrCat("rank ", rank, " has no GPU that can be used",
                                 reason.size() > 1 ? ": " + reason.substr(1) : "");
    break;
  }
  return mine;
}

absl::Status RunOnDevice(const std::string& wanted, int threads, Transport& host,
                         const NcclOptions& nccl,
                         const std::function<absl::Status(Transport&, Device&)>& body) {
  const absl::StatusOr<DeviceChoice> choice = AgreeOnDevice(wanted, threads, host);
  if (!choice.ok()) return choice.status();
  if (host.rank() == 0) SayWhyCpu(*choice);
  if (choice->device->kind() == DeviceKind::kCpu) return body(host, *choice->device);
  std::string why_staged;
  const absl::StatusOr<std::unique_ptr<Transport>> between =
      OpenGpuTransport(host, *choice->device, nccl, &why_staged);
  if (absl::Status status = Agree(host, between.status()); !status.ok()) return status;
  if (host.rank() == 0 && host.size() > 1 && !why_staged.empty()) {
    std::fprintf(stderr, "longspan: messages go through pinned memory: %s\n", why_staged.c_str());
  }
  return body(**between, *choice->device);
}

}  // namespace longspan
