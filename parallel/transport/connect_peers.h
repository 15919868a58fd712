// ConnectPeers: the connections that a transport opens at first use, opened before the first step.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_CONNECT_PEERS_H_
#define LONGSPAN_PARALLEL_TRANSPORT_CONNECT_PEERS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

// What goes to each peer.
inline constexpr int64_t kConnectBytes = 64;

// Collective; returns when the connections are there. Exchanges kConnectBytes of memory of `device`
// with the ranks that rings of neighbours meet: those at most two away in rank order, the first
// following the last, and all of the same host. A connection takes time and, with NCCL, memory,
// which is better found missing at the start than in the middle of a run.
absl::Status ConnectPeers(Transport& transport, Device& device);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_CONNECT_PEERS_H_
