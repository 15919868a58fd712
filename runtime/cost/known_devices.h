// Devices by name, with the rates that cost estimates are made of.
#ifndef LONGSPAN_RUNTIME_COST_KNOWN_DEVICES_H_
#define LONGSPAN_RUNTIME_COST_KNOWN_DEVICES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

// Rates of one device, for its own dense matrix products: BF16 on GPUs, FP32 on a CPU core. Bytes
// go one way.
struct KnownDevice {
  const char* name;
  double sheet_flops_per_second;    // the data sheet's, without sparsity
  double linear_share;              // of those, what training without attention achieves
  double attention_forward_flops;   // a second, achieved: 4 a (query, key) pair and value of width
  double attention_backward_flops;  // a second, achieved: 10 a pair and value of width
  double network_bytes_per_second;  // line rate of the device's share of the network
  double node_link_bytes_per_second;  // line rate to the devices of the same node
  int value_bytes;                    // of an activation
  const char* source;                 // where the rates come from, in a few words
};

// InvalidArgument lists the devices there are.
absl::StatusOr<KnownDevice> DeviceByName(const std::string& name);
std::vector<std::string> KnownDeviceNames();

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_COST_KNOWN_DEVICES_H_
