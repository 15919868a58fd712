// The transport between processes started by mpirun or srun.
//
// Exchanges complete on a thread of their own, which sleeps when nothing is under way. While a call
// waits for slower ranks it polls with pauses, so that ranks which share a core leave it to those
// that compute. Messages of any size travel, in pieces (mpi_progress.h); collectives are cut where
// MPI's 32-bit counts end. Reductions are in rank order with the same bits as the in-process
// transport, except over several nodes, where large ones take MPI's own order, which is fixed for a
// given number of ranks; those of bf16, which MPI cannot add, are in rank order there too.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_MPI_TRANSPORT_H_
#define LONGSPAN_PARALLEL_TRANSPORT_MPI_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct MpiOptions {
  // The longest single collective, in bytes; longer ones are cut, and so are messages where their
  // own pieces would be longer. At most 2^30.
  int64_t piece_bytes = int64_t{1} << 30;
  // Who adds large reductions up. kAuto: we do on one node (measured up to twice as fast there),
  // MPI does over several (it sends less between nodes).
  enum class Reduction { kAuto, kRankOrder, kMpi };
  Reduction reduction = Reduction::kAuto;
};

// Whether a launcher (mpirun, srun with PMI or PMIx) started this process. Looks at the environment
// alone.
bool LaunchedUnderMpi();

// "Open MPI v4.1.4, ...": the first line of what the library says of itself. At any time.
std::string MpiLibraryVersion();

// Initialises MPI, with which the process becomes one rank; without a launcher the only one. Call
// once, early, on the main thread; destroy the result on the main thread too, when every event is
// done: that finalises MPI, which waits for all ranks, so a rank that fails calls Abort instead.
// FailedPrecondition when MPI lacks MPI_THREAD_MULTIPLE or was initialised by somebody else.
absl::StatusOr<std::unique_ptr<Transport>> OpenMpiTransport(int* argc, char*** argv,
                                                            const MpiOptions& options = {});

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_MPI_TRANSPORT_H_
