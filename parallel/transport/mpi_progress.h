// MpiProgress: posts the messages of exchanges, and completes their events on a thread of its own.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_MPI_PROGRESS_H_
#define LONGSPAN_PARALLEL_TRANSPORT_MPI_PROGRESS_H_

#include <mpi.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Thread-safe. Sleeps while nothing is outstanding, polls with pauses otherwise.
class MpiProgress {
 public:
  // Messages longer than `piece_bytes` are cut. The communicator is for this object alone, and
  // errors on it return.
  MpiProgress(MPI_Comm communicator, int rank, int64_t piece_bytes);
  // A check fails if an exchange is still outstanding: its memory could be written to later.
  ~MpiProgress();

  // Posts the receives, then the sends; completes `promise` when all are done.
  void Post(const std::vector<Message>& sends, const std::vector<Message>& receives,
            EventPromise promise);

 private:
  struct Operation {
    EventPromise promise;
    int64_t outstanding = 0;
    absl::Status status;
  };
  struct Request {
    MPI_Request handle = MPI_REQUEST_NULL;
    std::shared_ptr<Operation> operation;
    int receive_bytes = -1;  // what a receive must bring; -1 for a send
    int peer = 0;
  };

  void Run();
  // Ends the requests that MPI says are done; false if none was.
  bool CompleteSome(std::vector<MPI_Request>& handles, std::vector<Request>& requests);
  absl::Status CheckReceived(const Request& request, const MPI_Status& status) const;

  const MPI_Comm communicator_;
  const int rank_;
  const int64_t piece_bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Request> posted_;  // not yet seen by the thread
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_MPI_PROGRESS_H_
