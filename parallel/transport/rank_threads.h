// RunRanks: runs a job's ranks as threads of this program, over an in-process transport.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_RANK_THREADS_H_
#define LONGSPAN_PARALLEL_TRANSPORT_RANK_THREADS_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device/stream.h"
#include "parallel/transport/in_process_transport.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct RankThreadOptions {
  int threads_per_rank = 1;
  // Opens the device of each rank; by default a CPU with so many threads.
  std::function<absl::StatusOr<std::unique_ptr<Device>>(int rank)> open_device;
  InProcessOptions network;
  // After this time the job is aborted with a report of where each rank stood. A rank that does not
  // end within ten more seconds, because it hangs outside of the transport, ends the program.
  absl::Duration timeout = absl::InfiniteDuration();
};

// Calls body(transport, device) on `ranks` >= 1 threads and joins them. The first rank that returns
// an error aborts the others; the result is the first cause, prefixed with its rank, rather than
// what followed from it on other ranks; DeadlineExceeded with the report on a time-out. Devices
// outlive all ranks.
//
// A stream that ends waits for its queued work, and so perhaps for other ranks: a body that fails
// while such work is queued calls Abort before its streams end, or the error would wait with it.
absl::Status RunRanks(int ranks, const std::function<absl::Status(Transport&, Device&)>& body,
                      const RankThreadOptions& options = {});

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_RANK_THREADS_H_
