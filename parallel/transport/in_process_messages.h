// InProcessMessages: the point-to-point messages of an InProcessNetwork.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_MESSAGES_H_
#define LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_MESSAGES_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/stream.h"
#include "parallel/transport/in_process_transport.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Matches sends and receives in the order of their posting, for each pair of ranks. Thread-safe. No
// promise is completed and no message copied under the lock.
class InProcessMessages {
 public:
  InProcessMessages(int ranks, const InProcessOptions& options);
  // Delivers what is still delayed.
  ~InProcessMessages();

  // Completes `promise` when all messages are delivered; with the first failure otherwise, but
  // never while one of the buffers may still be used.
  // The memory is `device`'s or its host's; the device outlives all deliveries. `copies`: where
  // messages to this rank are copied, without work that waits for anything; nullptr: on the thread
  // that comes second. It outlives the rank's exchanges.
  void Post(int rank, const std::vector<Message>& sends, const std::vector<Message>& receives,
            Device& device, Stream* copies, EventPromise promise);
  // Fails what is pending and all later posts.
  void Fail(const absl::Status& status);
  // Fails what is pending with `rank` and later posts that name it; what it has sent already can
  // still be received. Waits for deliveries from and to it: afterwards nobody uses its `copies`.
  void Leave(int rank);
  std::string Describe(int rank) const;

 private:
  // One Exchange call. Each of its messages holds it, and Post until all are posted.
  struct Operation {
    std::mutex mutex;
    int64_t outstanding = 1;
    absl::Status status;
    Stream* copies = nullptr;
    std::vector<Event> delivered;  // by streams
    EventPromise promise;
  };
  // One side of a message; a buffered send has its bytes in `buffered` and no operation.
  struct Side {
    std::shared_ptr<Operation> operation;
    void* data = nullptr;
    int64_t bytes = 0;
    std::vector<char> buffered;
    Device* device = nullptr;
    Stream* copies = nullptr;
  };
  struct Channel {
    std::deque<Side> sends;
    std::deque<Side> receives;
  };
  struct Match {
    int source = 0;
    int destination = 0;
    Side send;
    Side receive;
  };
  using Clock = std::chrono::steady_clock;

  Channel& channel(int source, int destination) { return channels_[source * ranks_ + destination]; }
  const Channel& channel(int source, int destination) const {
    return channels_[source * ranks_ + destination];
  }
  // One message of it has ended: with `status`, or where a stream copies it with `delivered`.
  static void Finish(const std::shared_ptr<Operation>& operation, const absl::Status& status,
                     const Event& delivered = Event());
  void Deliver(Match& match);
  // Under the lock.
  Match Matched(int source, int destination, Side send, Side receive);
  // Both under the lock. Sides that cannot be matched any more go to `failed`.
  void PostReceive(int rank, int peer, Side side, std::vector<Match>& matches,
                   std::vector<Side>& failed);
  void PostSend(int rank, int peer, Side side, std::vector<Match>& matches,
                std::vector<Side>& failed);
  absl::Status FailureWith(int peer) const;
  void DeliverDelayed();

  const int ranks_;
  const InProcessOptions options_;
  mutable std::mutex mutex_;
  std::vector<Channel> channels_;  // by source, then destination
  std::vector<bool> gone_;
  absl::Status failure_;
  std::vector<int> delivering_;  // matches of each rank that are not through
  std::condition_variable delivered_;

  std::mt19937_64 random_;
  std::multimap<Clock::time_point, Match> delayed_;
  std::condition_variable delayed_changed_;
  bool stop_ = false;
  std::thread postman_;  // only with delays
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_MESSAGES_H_
