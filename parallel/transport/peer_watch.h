// PeerWatch: notices within a second that another rank's process on this node has ended.
//
// A launcher tells the other ranks by SIGTERM only, which a training job takes as the wish to stop
// in order: it would wait for a peer that is gone. So ranks look for themselves. Peers on other
// nodes, or whose process is not visible here (containers with process numbers of their own), are
// not watched.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_PEER_WATCH_H_
#define LONGSPAN_PARALLEL_TRANSPORT_PEER_WATCH_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Owns a thread that sleeps most of the time. Destroy it before the transport ends: a peer that
// ends in order is no death.
class PeerWatch {
 public:
  // Collective. `on_death(rank, lowest)` is called once, on the watch's thread; `lowest`: this rank
  // is the lowest one left on the node, the one to tell the user.
  static absl::StatusOr<std::unique_ptr<PeerWatch>> Start(
      Transport& transport, std::function<void(int rank, bool lowest)> on_death);
  ~PeerWatch();
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;

 private:
  struct State;
  explicit PeerWatch(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_PEER_WATCH_H_
