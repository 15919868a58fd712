// InProcessMeetings: where the ranks of an InProcessNetwork come together for a collective call.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_MEETINGS_H_
#define LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_MEETINGS_H_

#include <compare>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longspan {

// Thread-safe.
class InProcessMeetings {
 public:
  // Collective calls are numbered, on streams and on the host apart, in the order in which each
  // rank makes them; one call may meet several times.
  struct Key {
    bool host = false;
    int64_t call = 0;
    int phase = 0;
    auto operator<=>(const Key&) const = default;
  };
  // What one rank brings along.
  struct Arrival {
    std::string purpose;  // "all-reduce of 4096 f32"; the same on all ranks
    const void* input =
        nullptr;  // memory that others may read until the rank's next meeting of this call
    std::string bytes;
  };

  explicit InProcessMeetings(int ranks);
  // Blocks until all ranks have come; returns what they brought, by rank. InvalidArgument on all
  // ranks if purposes differ; Unavailable if the network failed or a rank left.
  absl::StatusOr<std::shared_ptr<const std::vector<Arrival>>> Meet(int rank, const Key& key,
                                                                   Arrival arrival);
  void Fail(const absl::Status& status);
  void Leave(int rank);
  std::string Describe(int rank) const;

 private:
  struct Meeting {
    std::shared_ptr<std::vector<Arrival>> arrivals;
    std::vector<bool> here;
    int count = 0;
  };
  // The failure that keeps `meeting` from ever being complete, under the lock.
  absl::Status Obstacle(const Meeting& meeting) const;

  const int ranks_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, std::shared_ptr<Meeting>> open_;
  std::vector<bool> gone_;
  absl::Status failure_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_IN_PROCESS_MEETINGS_H_
