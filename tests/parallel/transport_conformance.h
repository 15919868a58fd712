// What every Transport must do, as one function that runs on each rank of a job: on threads in
// transport_test.cc, under mpirun in tests/mpi.
#ifndef LONGSPAN_TESTS_PARALLEL_TRANSPORT_CONFORMANCE_H_
#define LONGSPAN_TESTS_PARALLEL_TRANSPORT_CONFORMANCE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct ConformanceOptions {
  // Sums have the bits of rank order; otherwise they may differ by rounding.
  bool rank_order = true;
  // Ranks that disagree about a message's size hear of it. NCCL's do not.
  bool sizes_checked = true;
  // Of the random exchanges.
  int rounds = 20;
  uint64_t seed = 1;
};

// The first thing that is wrong, on this rank.
absl::Status CheckTransport(Transport& transport, Device& device,
                            const ConformanceOptions& options);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_PARALLEL_TRANSPORT_CONFORMANCE_H_
