// Which device a rank computes on: run.device.
#ifndef LONGSPAN_LAUNCH_DEVICE_CHOICE_H_
#define LONGSPAN_LAUNCH_DEVICE_CHOICE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "parallel/transport/nccl_transport.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct DeviceChoice {
  std::unique_ptr<Device> device;
  // Why "auto" took the CPU, such as "no GPU can be used (...)"; empty where nothing is to be said.
  std::string why_cpu;
};

// Prints the reason on standard error, where there is one.
void SayWhyCpu(const DeviceChoice& choice);

// `wanted`: "auto" (a GPU where one can be used), "cpu" or "cuda". Ranks of a node take its GPUs in
// turn: rank_on_node modulo their number, so that several may share one. `threads` of the CPU, on a
// GPU beside it. A GPU can be used where the libraries are there that operators load.
// FailedPrecondition with the reason where "cuda" cannot be had.
absl::StatusOr<DeviceChoice> OpenDevice(const std::string& wanted, int rank_on_node, int threads);

// Collective: the same for all ranks of a job, which compute alike. With "auto" a rank without a
// usable GPU brings all of them to their CPUs.
absl::StatusOr<DeviceChoice> AgreeOnDevice(const std::string& wanted, int threads,
                                           Transport& transport);

// Collective. Calls `body` with the device that AgreeOnDevice gives, and with what ranks speak
// through then: on CPUs `host`, which knows host memory alone; on GPUs NCCL, or pinned memory where
// there is no NCCL or ranks share a GPU. Rank 0 says on standard error why it is CPUs, or pinned
// memory. Returns what `body` returns, or an error that all ranks have (IsAgreed).
absl::Status RunOnDevice(const std::string& wanted, int threads, Transport& host,
                         const NcclOptions& nccl,
                         const std::function<absl::Status(Transport&, Device&)>& body);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_DEVICE_CHOICE_H_
