// MpiProgress: carries out exchanges under MPI, and completes their events on a thread of its own.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_MPI_PROGRESS_H_
#define LONGSPAN_PARALLEL_TRANSPORT_MPI_PROGRESS_H_

#include <mpi.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Messages travel in pieces short enough for MPI to send at once, without asking the receiver
// first. Between two ranks that send to each other, such a question or its answer waits behind all
// that is on its way in the same direction: over TCP, OpenMPI's long messages then go one direction
// at a time. Some pieces are under way for each peer and direction; as they complete, the next ones
// are posted.
//
// Thread-safe. Sleeps while nothing is outstanding, polls with pauses otherwise.
class MpiProgress {
 public:
  // Pieces are of at most `piece_bytes`, and never longer than kMostPieceBytes. The communicator is
  // for this object alone, and errors on it return.
  MpiProgress(MPI_Comm communicator, int rank, int64_t piece_bytes);
  // A check fails if an exchange is still outstanding: its memory could be written to later.
  ~MpiProgress();

  // Under OpenMPI's limit of 64 KiB for what TCP sends at once, with its header.
  static constexpr int64_t kMostPieceBytes = 60 << 10;

  // Posts the receives, then the sends; completes `promise` when all are done.
  void Post(const std::vector<Message>& sends, const std::vector<Message>& receives,
            EventPromise promise);

 private:
  // Pieces under way in a lane: about a megabyte, more than a network has in flight.
  static constexpr int kPiecesUnderWay = 16;

  struct Operation {
    EventPromise promise;
    int64_t outstanding = 0;  // pieces
    absl::Status status;
  };
  // What is left of a message.
  struct Remainder {
    char* data = nullptr;
    int64_t bytes = 0;
    std::shared_ptr<Operation> operation;
  };
  // One direction between this rank and another: messages in the order of their calls, which is
  // that in which the other rank expects or sends them.
  struct Lane {
    int peer = 0;
    bool send = false;
    std::deque<Remainder> waiting;
    int under_way = 0;
  };
  struct Request {
    MPI_Request handle = MPI_REQUEST_NULL;
    std::shared_ptr<Operation> operation;
    Lane* lane = nullptr;
    int bytes = 0;
  };

  // Operations that have ended, to be completed without the mutex.
  using Finished = std::vector<std::shared_ptr<Operation>>;

  void Run();
  // Posts as many pieces of a lane as may be under way. With the mutex held.
  void PostPieces(Lane& lane, Finished& finished);
  // Ends the requests that MPI says are done, and posts what may follow; false if none was. For the
  // thread.
  bool CompleteSome(std::vector<MPI_Request>& handles, std::vector<Request>& requests);
  // With the mutex held.
  static void EndPiece(const std::shared_ptr<Operation>& operation, const absl::Status& status,
                       Finished& finished);
  static void Complete(const Finished& finished);
  absl::Status CheckReceived(const Request& request, const MPI_Status& status) const;

  const MPI_Comm communicator_;
  const int rank_;
  const int64_t piece_bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<int, bool>, Lane> lanes_;  // by peer, and whether it sends
  std::vector<Request> posted_;                 // not yet seen by the thread
  bool called_ = false;                         // Post was, since the thread looked last
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_MPI_PROGRESS_H_
