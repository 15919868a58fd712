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
    : communicator_(communicator), rank_(rank), piece_bytes_(piece_bytes) {
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
  std::vector<Request> requests;
  absl::Status status;
  auto post = [&](const Message& message, bool send) {
    char* data = static_cast<char*>(message.tensor.raw());
    const int64_t bytes = message.tensor.bytes();
    for (int64_t begin = 0; begin < bytes && status.ok(); begin += piece_bytes_) {
      const int count = static_cast<int>(std::min(piece_bytes_, bytes - begin));
      Request request{MPI_REQUEST_NULL, operation, send ? -1 : count, message.peer};
      const int code = send ? MPI_Isend(data + begin, count, MPI_BYTE, message.peer, kTag,
                                        communicator_, &request.handle)
                            : MPI_Irecv(data + begin, count, MPI_BYTE, message.peer, kTag,
                                        communicator_, &request.handle);
      status = MpiStatus(code, send ? "MPI_Isend" : "MPI_Irecv", rank_);
      if (status.ok()) requests.push_back(std::move(request));
    }
  };
  for (const Message& message : receives) post(message, /*send=*/false);
  for (const Message& message : sends) post(message, /*send=*/true);

  operation->outstanding = static_cast<int64_t>(requests.size());
  operation->status = status;
  if (requests.empty()) {
    operation->promise.Complete(status);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    for (Request& request : requests) posted_.push_back(std::move(request));
  }
  changed_.notify_all();
}

absl::Status MpiProgress::CheckReceived(const Request& request, const MPI_Status& status) const {
  if (request.receive_bytes < 0) return absl::OkStatus();
  int count = 0;
  MPI_Get_count(&status, MPI_BYTE, &count);
  if (count == request.receive_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "exchange: rank ", request.peer, " sent ", count, " bytes, but rank ", rank_, " expects ",
      request.receive_bytes, " from it: the ranks disagree about their plan"));
}

bool MpiProgress::CompleteSome(std::vector<MPI_Request>& handles, std::vector<Request>& requests) {
  const int total = static_cast<int>(handles.size());
  std::vector<int> indices(total);
  std::vector<MPI_Status> statuses(total);
  int done = 0;
  const int code = MPI_Testsome(total, handles.data(), &done, indices.data(), statuses.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
    // MPI can say nothing about any of them any more.
    for (Request& request : requests) {
      request.operation->status.Update(MpiStatus(code, "MPI_Testsome", rank_));
      if (--request.operation->outstanding == 0) {
        request.operation->promise.Complete(request.operation->status);
      }
    }
    handles.clear();
    requests.clear();
    return true;
  }
  if (done == 0 || done == MPI_UNDEFINED) return false;
  for (int i = 0; i < done; ++i) {
    Request& request = requests[indices[i]];
    absl::Status status;
    if (code == MPI_ERR_IN_STATUS) {
      if (statuses[i].MPI_ERROR == MPI_ERR_PENDING) continue;
      const char* call = request.receive_bytes < 0 ? "MPI_Isend" : "MPI_Irecv";
      status = MpiStatus(statuses[i].MPI_ERROR, call, rank_);
    }
    if (status.ok()) status = CheckReceived(request, statuses[i]);
    request.operation->status.Update(status);
    if (--request.operation->outstanding == 0) {
      request.operation->promise.Complete(request.operation->status);
    }
    request.operation = nullptr;
  }
  size_t kept = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].operation == nullptr) continue;
    if (kept != i) {
      requests[kept] = std::move(requests[i]);
      handles[kept] = handles[i];
    }
    ++kept;
  }
  requests.resize(kept);
  handles.resize(kept);
  return true;
}

void MpiProgress::Run() {
  pthread_setname_np(pthread_self(), "mpi-progress");
  // The default slack of 50 microseconds would more than double the short sleeps below.
  prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
  std::vector<MPI_Request> handles;
  std::vector<Request> requests;
  PollPause pause;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      auto news = [&] { return stop_ || !posted_.empty(); };
      if (requests.empty()) {
        changed_.wait(lock, news);
      } else if (const int sleep = pause.NextMicroseconds(); sleep > 0) {
        changed_.wait_for(lock, std::chrono::microseconds(sleep), news);
      }
      if (stop_) {
        LONGSPAN_CHECK(requests.empty() && posted_.empty(),
                       "the transport was destroyed while an exchange was under way");
        return;
      }
      if (!posted_.empty()) pause.Reset();
      for (Request& request : posted_) {
        handles.push_back(request.handle);
        requests.push_back(std::move(request));
      }
      posted_.clear();
    }
    if (requests.empty()) continue;
    if (CompleteSome(handles, requests)) {
      pause.Reset();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace longspan
