// InProcessTagged: the tagged host messages of an InProcessNetwork.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_TAGGED_H_
#define LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_TAGGED_H_

#include <condition_variable>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "parallel/transport/tagged_messages.h"

namespace longspan {

// Thread-safe.
class InProcessTagged {
 public:
  explicit InProcessTagged(int ranks) : arrived_(ranks), gone_(ranks, false) {}
  absl::Status Send(int source, int destination, std::string_view tag, std::string_view bytes);
  absl::StatusOr<std::string> Receive(int rank, int source, std::string_view tag,
                                      absl::Duration timeout);
  void Drop(int rank, std::string_view prefix);
  // Fails receives under way and all later calls.
  void Fail(const absl::Status& status);
  // Fails receives from `rank` of what it has not sent.
  void Leave(int rank);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TaggedMessages> arrived_;  // by the rank that receives
  std::vector<bool> gone_;
  absl::Status failure_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_TAGGED_H_
