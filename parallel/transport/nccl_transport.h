// The transport between GPUs: NCCL, with one communicator of all ranks.
//
// What is on a CUDA stream goes through NCCL: an exchange is one group of sends and receives on a
// stream of its own, a collective runs on the caller's. Host calls, tagged messages and what is on
// a CPU stream go to the transport beside it. NCCL serialises what is issued on one communicator,
// so collectives come after the last exchange of a step (transport.h).
//
// Failure: an error that NCCL reports beside its calls, an operation that takes longer than the
// time-out, or an abort of the job ends what is under way and what comes later: streams fail with
// Unavailable and a message that names the operation, its peers and this rank, and the communicator
// is aborted (nccl_watch.h).
#ifndef LONGSPAN_PARALLEL_TRANSPORT_NCCL_TRANSPORT_H_
#define LONGSPAN_PARALLEL_TRANSPORT_NCCL_TRANSPORT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct NcclOptions {
  // For how long one exchange or collective may run, waiting for slower ranks included.
  absl::Duration timeout = absl::Minutes(20);
};

// Collective; the same outcome on every rank. `host` and `device`, a GPU, outlive it, and it
// outlives the work on streams it is used on. Connects for collectives (ConnectPeers does for
// exchanges), so that no step has to. FailedPrecondition: NCCL is missing or too old, not compiled
// in, or two ranks share a GPU, which NCCL refuses; MakeStagedTransport serves then.
absl::StatusOr<std::unique_ptr<Transport>> OpenNcclTransport(Transport& host, Device& device,
                                                             const NcclOptions& options = {});

// "2.28.9" of the library that would be loaded, or why there is none.
absl::StatusOr<std::string> NcclVersion();

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_NCCL_TRANSPORT_H_
