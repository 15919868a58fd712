// InProcessNetwork: ranks that are threads of one program. For tests, for simulations with delays,
// and for `longspan train --ranks N`.
//
// A message is copied straight from the sender's memory to the receiver's by whichever side comes
// second: no send completes before its receive is posted, unless `eager_bytes` says otherwise.
// Reductions sum in rank order. Streams may be of CPUs or of GPUs: several ranks can share a GPU,
// and messages are then copied from device memory to device memory: by a stream, which those that
// wait for an exchange wait for, once the host has found sender and receiver ready. Reductions of
// device memory are added up by the host, as the other ranks' streams do them.
//
// A rank that destroys its transport has left: what others still want from it fails with
// Unavailable. Abort, on any rank, fails everything on all ranks.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_TRANSPORT_H_
#define LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct InProcessOptions {
  // Each message of an exchange is delivered after a random time below this, so messages overtake
  // each other. The times are drawn from `seed`.
  absl::Duration max_delay = absl::ZeroDuration();
  uint64_t seed = 0;
  // Sends of at most so many bytes are buffered and complete before their receive is posted, as MPI
  // does with small messages. 0: none (rendezvous), the strictest.
  int64_t eager_bytes = 0;
};

// Thread-safe. Transports keep what they need of it, so it may go before them.
class InProcessNetwork {
 public:
  explicit InProcessNetwork(int ranks, InProcessOptions options = {});
  ~InProcessNetwork();
  InProcessNetwork(const InProcessNetwork&) = delete;
  InProcessNetwork& operator=(const InProcessNetwork&) = delete;

  // The transport of `rank`; once for each rank. Its host calls are for one thread, and its streams
  // must be idle when it is destroyed.
  std::unique_ptr<Transport> Connect(int rank);
  // As Transport::Abort on any rank.
  void Abort(const std::string& reason);
  // What `rank` waits for, in words, e.g. "waits for rank 2: 1 receive (first: 4096 bytes)"; for
  // time-out reports.
  std::string Describe(int rank) const;

 private:
  struct State;
  class Endpoint;
  std::shared_ptr<State> state_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_TRANSPORT_H_
