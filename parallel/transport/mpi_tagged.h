// MpiTagged: tagged host messages under MPI, on a communicator of their own.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_MPI_TAGGED_H_
#define LONGSPAN_PARALLEL_TRANSPORT_MPI_TAGGED_H_

#include <mpi.h>

#include <list>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "parallel/transport/tagged_messages.h"

namespace longspan {

// Thread-safe. Whoever receives fetches what has arrived for anybody.
class MpiTagged {
 public:
  // The communicator is for this object alone, and errors on it return.
  MpiTagged(MPI_Comm communicator, int rank) : communicator_(communicator), rank_(rank) {}
  // Waits some seconds for messages that nobody has fetched yet, then leaves them.
  ~MpiTagged();
  MpiTagged(const MpiTagged&) = delete;
  MpiTagged& operator=(const MpiTagged&) = delete;

  absl::Status Send(int peer, std::string_view tag, std::string_view bytes);
  absl::StatusOr<std::string> Receive(int peer, std::string_view tag, absl::Duration timeout);
  void Drop(std::string_view prefix);

 private:
  struct Sent {
    std::string text;  // u64 length of the tag, tag, bytes
    MPI_Request request = MPI_REQUEST_NULL;
  };
  // These need the mutex held.
  void ForgetSent();
  absl::Status Fetch();

  const MPI_Comm communicator_;
  const int rank_;
  std::mutex mutex_;
  std::list<Sent> sent_;  // a list: MPI holds on to the texts
  TaggedMessages arrived_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_MPI_TAGGED_H_
