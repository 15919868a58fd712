// BackgroundVote: one phase of a save's agreement, by tagged messages to and from rank 0.
//
// Never a collective: a rank that does not answer in time fails the save on those that wait, and
// what it says later carries the tag of a save that is over.
#ifndef LONGSPAN_CHECKPOINT_BACKGROUND_VOTE_H_
#define LONGSPAN_CHECKPOINT_BACKGROUND_VOTE_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "parallel/transport/transport.h"

namespace longspan {

// The next message with `tag` from `rank`. Cancelled once `stop` is set, DeadlineExceeded after
// `timeout`, Unavailable if the rank is gone.
absl::StatusOr<std::string> AwaitTagged(Transport& transport, int rank, const std::string& tag,
                                        absl::Duration timeout, const std::atomic<bool>& stop);

// For one thread.
class BackgroundVote {
 public:
  // `tag` names generation, step, attempt and phase. `stop`, when set, ends waits with Cancelled.
  BackgroundVote(Transport& transport, std::string tag, absl::Duration timeout,
                 const std::atomic<bool>& stop)
      : transport_(transport), tag_(std::move(tag)), timeout_(timeout), stop_(stop) {}

  // Rank 0, to all others. A message that cannot be sent is a peer that is gone; it will be missed
  // where it counts.
  void Tell(const absl::Status& status, const std::string& payload);
  // As Tell, to one of them.
  void TellRank(int rank, const absl::Status& status, const std::string& payload);
  // The others, to rank 0.
  void TellLeader(const absl::Status& status, const std::string& payload);
  // The others: rank 0's payload, or its failure. DeadlineExceeded after the time-out, Unavailable
  // if it is gone.
  absl::StatusOr<std::string> Hear();
  // Rank 0: every rank's payload, its own included, or the failure of the lowest rank that has one,
  // with rank and host. Waits for all ranks, whatever they say, so that none is still at work.
  absl::StatusOr<std::vector<std::string>> Collect(const absl::Status& mine,
                                                   const std::string& payload);

 private:
  absl::StatusOr<std::string> HearFrom(int rank, absl::Time deadline);

  Transport& transport_;
  const std::string tag_;
  const absl::Duration timeout_;
  const std::atomic<bool>& stop_;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_BACKGROUND_VOTE_H_
