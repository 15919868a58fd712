// Which device a rank computes on: run.device.
#ifndef LONGSPAN_LAUNCH_DEVICE_CHOICE_H_
#define LONGSPAN_LAUNCH_DEVICE_CHOICE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct DeviceChoice {
  std::unique_ptr<Device> device;
  // Why "auto" took the CPU, such as "no GPU can be used (...)"; empty where nothing is to be said.
  std::string why_cpu;
};

// `wanted`: "auto" (a GPU where one can be used), "cpu" or "cuda". Ranks of a node take its GPUs in
// turn: rank_on_node modulo their number, so that several may share one. `threads` of the CPU, on a
// GPU beside it. FailedPrecondition with the reason where "cuda" cannot be had.
absl::StatusOr<DeviceChoice> OpenDevice(const std::string& wanted, int rank_on_node, int threads);

// Collective: the same for all ranks of a job, which compute alike. With "auto" a rank without a
// usable GPU brings all of them to their CPUs.
absl::StatusOr<DeviceChoice> AgreeOnDevice(const std::string& wanted, int threads,
                                           Transport& transport);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_DEVICE_CHOICE_H_
