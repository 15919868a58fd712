#include "parallel/transport/mpi_progress.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "parallel/transport/mpi_status.h"

namespace longspan {
namespace {
constexpr int kTag = 0;
}  // namespace

MpiProgress::MpiProgress(MPI_Comm communicator, int rank, int64_t piece_bytes)
    : communicator_(communicator),
      rank_(rank),
      piece_bytes_(std::min(piece_bytes, kMostPieceBytes)) {
  thread_ = std::thread([this] { Run(); });
}

MpiProgress::~MpiProgress() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void MpiProgress::Post(const std::vector<Message>& sends, const std::vector<Message>& receives,
                       EventPromise promise) {
  auto operation = std::make_shared<Operation>();
  operation->promise = std::move(promise);
  Finished finished;
  {
    std::lock_guard lock(mutex_);
    std::vector<Lane*> lanes;
    const auto add = [&](const Message& message, bool send) {
      const int64_t bytes = message.tensor.bytes();
      if (bytes == 0) return;
      operation->outstanding += (bytes + piece_bytes_ - 1) / piece_bytes_;
      Lane& lane = lanes_[{message.peer, send}];
      lane.peer = message.peer;
      lane.send = send;
      lane.waiting.push_back({static_cast<char*>(message.tensor.raw()), bytes, operation});
      lanes.push_back(&lane);
    };
    for (const Message& message : receives) add(message, /*send=*/false);
    for (const Message& message : sends) add(message, /*send=*/true);
    if (operation->outstanding == 0) finished.push_back(operation);
    for (Lane* lane : lanes) PostPieces(*lane, finished);
    called_ = true;
  }
  changed_.notify_all();
  Complete(finished);
}

void MpiProgress::PostPieces(Lane& lane, Finished& finished) {
  while (lane.under_way < kPiecesUnderWay && !lane.waiting.empty()) {
    Remainder& message = lane.waiting.front();
    const int count = static_cast<int>(std::min(piece_bytes_, message.bytes));
    Request request{MPI_REQUEST_NULL, message.operation, &lane, count};
    const int code = lane.send ? MPI_Isend(message.data, count, MPI_BYTE, lane.peer, kTag,
                                           communicator_, &request.handle)
                               : MPI_Irecv(message.data, count, MPI_BYTE, lane.peer, kTag,
                                           communicator_, &request.handle);
    message.data += count;
    message.bytes -= count;
    if (message.bytes == 0) lane.waiting.pop_front();
    if (code == MPI_SUCCESS) {
      ++lane.under_way;
      posted_.push_back(std::move(request));
    } else {
      EndPiece(request.operation, MpiStatus(code, lane.send ? "MPI_Isend" : "MPI_Irecv", rank_),
               finished);
    }
  }
}

void MpiProgress::EndPiece(const std::shared_ptr<Operation>& operation, const absl::Status& status,
                           Finished& finished) {
  operation->status.Update(status);
  if (--operation->outstanding == 0) finished.push_back(operation);
}

void MpiProgress::Complete(const Finished& finished) {
  for (const std::shared_ptr<Operation>& operation : finished) {
    operation->promise.Complete(operation->status);
  }
}

absl::Status MpiProgress::CheckReceived(const Request& request, const MPI_Status& status) const {
  if (request.lane->send) return absl::OkStatus();
  int count = 0;
  MPI_Get_count(&status, MPI_BYTE, &count);
  if (count == request.bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "exchange: rank ", request.lane->peer, " sent ", count, " bytes, but rank ", rank_,
      " expects ", request.bytes, " from it: the ranks disagree about their plan"));
}

bool MpiProgress::CompleteSome(std::vector<MPI_Request>& handles, std::vector<Request>& requests) {
  const int total = static_cast<int>(handles.size());
  std::vector<int> indices(total);
  std::vector<MPI_Status> statuses(total);
  int done = 0, code = MPI_SUCCESS;
  // OpenMPI looks at the requests first and only then at the network: a second call sees what the
  // first has brought.
  for (int look = 0; look < 2 && code == MPI_SUCCESS && done == 0; ++look) {
    code = MPI_Testsome(total, handles.data(), &done, indices.data(), statuses.data());
  }
  if (code == MPI_SUCCESS && (done == 0 || done == MPI_UNDEFINED)) return false;

  Finished finished;
  {
    std::lock_guard lock(mutex_);
    const auto end = [&](Request& request, const absl::Status& status) {
      EndPiece(request.operation, status, finished);
      request.operation = nullptr;
      --request.lane->under_way;
    };
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
      // MPI can say nothing about any of them any more.
      for (Request& request : requests) end(request, MpiStatus(code, "MPI_Testsome", rank_));
      done = 0;
    }
    for (int i = 0; i < done; ++i) {
      Request& request = requests[indices[i]];
      absl::Status status;
      if (code == MPI_ERR_IN_STATUS) {
        if (statuses[i].MPI_ERROR == MPI_ERR_PENDING) continue;
        status =
            MpiStatus(statuses[i].MPI_ERROR, request.lane->send ? "MPI_Isend" : "MPI_Irecv", rank_);
      }
      if (status.ok()) status = CheckReceived(request, statuses[i]);
      end(request, status);
    }
    size_t kept = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].operation == nullptr) {
        PostPieces(*requests[i].lane, finished);
        continue;
      }
      if (kept != i) {
        requests[kept] = std::move(requests[i]);
        handles[kept] = handles[i];
      }
      ++kept;
    }
    requests.resize(kept);
    handles.resize(kept);
  }
  Complete(finished);
  return true;
}

void MpiProgress::Run() {
  pthread_setname_np(pthread_self(), "mpi-progress");
  // The default slack of 50 microseconds would more than double the short sleeps below.
  prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
  std::vector<MPI_Request> handles;
  std::vector<Request> requests;
  PollPause pause;
  bool progressed = false;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      const auto news = [&] { return stop_ || !posted_.empty(); };
      if (requests.empty()) {
        changed_.wait(lock, news);
      } else if (!progressed) {
        const int sleep = pause.NextMicroseconds();
        if (sleep > 0) changed_.wait_for(lock, std::chrono::microseconds(sleep), news);
      }
      if (stop_) {
        LONGSPAN_CHECK(requests.empty() && posted_.empty(),
                       "the transport was destroyed while an exchange was under way");
        return;
      }
      if (std::exchange(called_, false)) pause.Reset();
      for (Request& request : posted_) {
        handles.push_back(request.handle);
        requests.push_back(std::move(request));
      }
      posted_.clear();
    }
    progressed = CompleteSome(handles, requests);
    if (progressed) {
      pause.Shorten();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace longspan
