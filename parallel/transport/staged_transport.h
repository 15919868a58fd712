// StagedTransport: messages between device memory of ranks whose transport knows host memory alone.
//
// Everything goes through pinned memory: a copy out on one stream, the host transport, a copy in on
// another. Long messages, sums of gradients and gathered parameters are cut into pieces, so that
// one piece is copied while the one before it travels. What is on a CPU stream goes straight to the
// host transport.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_STAGED_TRANSPORT_H_
#define LONGSPAN_PARALLEL_TRANSPORT_STAGED_TRANSPORT_H_

#include <cstdint>
#include <memory>

#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct StagedOptions {
  int64_t piece_bytes = int64_t{4} << 20;  // alike on all ranks
  int threads = 2;                         // that add up on the host
};

// Of one rank with one GPU. `host` and `device` outlive it, and it outlives the streams that it is
// used on. Its memory, under the tag "transport",
// grows to what is under way at a time. Thread-safety as Transport.
std::unique_ptr<Transport> MakeStagedTransport(Transport& host, Device& device,
                                               const StagedOptions& options = {});

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_STAGED_TRANSPORT_H_
