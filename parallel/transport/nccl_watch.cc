#include "parallel/transport/nccl_watch.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/device/cuda_status.h"

namespace longspan {
namespace {

// For how long an abort waits for a call of NCCL that another thread is in. One that hangs itself
// is aborted beside that thread, which NCCL serves since 2.19.
constexpr std::chrono::seconds kCallGrace(2);

}  // namespace

NcclWatch::NcclWatch(const NcclLibrary& library, ncclComm_t communicator, int rank, Options options)
    : nccl_(library), communicator_(communicator), rank_(rank), options_(std::move(options)) {
  (void)cudaGetDevice(&device_);
  thread_ = std::thread([this] { Watch(); });
}

NcclWatch::~NcclWatch() {
  StopThread();
  for (const Pending& pending : pending_) {
    for (cudaEvent_t event : {pending.begun, pending.ended}) (void)cudaEventDestroy(event);
  }
  for (cudaEvent_t event : events_) (void)cudaEventDestroy(event);
}

void NcclWatch::StopThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

absl::Status NcclWatch::Stop() {
  StopThread();
  absl::Status status = aborted_ ? absl::OkStatus() : AsyncError();
  const std::lock_guard lock(mutex_);
  status.Update(failure_);
  return status;
}

absl::Status NcclWatch::Issue(NcclOperation operation, const Stream& stream,
                              const std::function<absl::Status()>& call) {
  const auto native = static_cast<cudaStream_t>(stream.native());
  {
    const std::lock_guard lock(mutex_);
    absl::Status status = failure_;
    status.Update(Prune());
    status.Update(HaveEvents(2));
    if (status.ok())
      status = CudaStatus(cudaEventRecord(events_.back(), native), "cudaEventRecord");
    if (!status.ok()) {
      Fail(status);
      return failure_;
    }
    Pending& mine = pending_.emplace_back();
    mine.operation = std::move(operation);
    mine.fail = stream.Failer();
    for (cudaEvent_t* event : {&mine.begun, &mine.ended}) {
      *event = events_.back();
      events_.pop_back();
    }
    mine.since = Clock::now();
    calling_ = true;
  }
  absl::Status status = call();
  const std::lock_guard lock(mutex_);
  calling_ = false;
  Pending& mine = pending_.back();
  mine.returned = true;
  status.Update(CudaStatus(cudaEventRecord(mine.ended, native), "cudaEventRecord"));
  if (!status.ok()) Fail(status);
  if (!failure_.ok()) changed_.notify_all();
  return failure_;
}

absl::Status NcclWatch::HaveEvents(size_t count) {
  while (events_.size() < count) {
    cudaEvent_t event = nullptr;
    const absl::Status status = CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                                           "cudaEventCreateWithFlags");
    if (!status.ok()) return status;
    events_.push_back(event);
  }
  return absl::OkStatus();
}

absl::Status NcclWatch::Prune() {
  while (!pending_.empty() && pending_.front().returned) {
    Pending& oldest = pending_.front();
    const cudaError_t error = cudaEventQuery(oldest.ended);
    if (error == cudaErrorNotReady) break;
    if (error != cudaSuccess) return CudaStatus(error, oldest.operation.name);
    events_.push_back(oldest.begun);
    events_.push_back(oldest.ended);
    pending_.pop_front();
  }
  return absl::OkStatus();
}

std::string NcclWatch::Describe() const {
  if (pending_.empty()) return "no operation under way";
  const NcclOperation& oldest = pending_.front().operation;
  std::string text = absl::StrCat(oldest.name, " of ", oldest.bytes, " bytes");
  if (oldest.to.empty() && oldest.from.empty()) absl::StrAppend(&text, " with all ranks");
  for (const auto& [way, peers] :
       {std::pair(" to", &oldest.to), std::pair(" from", &oldest.from)}) {
    if (peers->empty()) continue;
    absl::StrAppend(&text, way, peers->size() == 1 ? " rank " : " ranks ",
                    absl::StrJoin(*peers, ", "));
  }
  return text;
}

absl::Status NcclWatch::AsyncError() {
  ncclResult_t result = ncclSuccess;
  absl::Status status =
      nccl_.Check(nccl_.get_async_error(communicator_, &result), "ncclCommGetAsyncError", rank_);
  if (status.ok() && result != ncclSuccess && result != ncclInProgress) {
    const std::lock_guard lock(mutex_);
    status = nccl_.Check(result, absl::StrCat("beside ", Describe()).c_str(), rank_);
  }
  return status;
}

absl::Status NcclWatch::OverTime() {
  if (pending_.empty()) return absl::OkStatus();
  Pending& oldest = pending_.front();
  const Clock::time_point now = Clock::now();
  if (oldest.returned && !oldest.running) {
    if (cudaEventQuery(oldest.begun) != cudaSuccess) return absl::OkStatus();
    oldest.running = true;
    oldest.since = now;
  }
  if (absl::FromChrono(now - oldest.since) <= options_.timeout) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("NCCL: ", Describe(), " on rank ", rank_,
                                             " did not end within ",
                                             absl::FormatDuration(options_.timeout),
                                             ": a rank of it has died or hangs, or is slower yet"));
}

void NcclWatch::Fail(const absl::Status& status) {
  if (!failure_.ok()) return;
  failure_ = status;
  for (const Pending& pending : pending_) pending.fail(failure_);
  changed_.notify_all();
}

void NcclWatch::Watch() {
  (void)cudaSetDevice(device_);
  const auto period = absl::ToChronoMilliseconds(
      std::clamp(options_.timeout / 10, absl::Milliseconds(1), absl::Milliseconds(100)));
  std::unique_lock lock(mutex_);
  while (failure_.ok()) {
    if (changed_.wait_for(lock, period, [&] { return stop_ || !failure_.ok(); })) {
      if (failure_.ok()) return;
      break;
    }
    lock.unlock();
    absl::Status status = AsyncError();
    if (status.ok() && options_.job) status = options_.job();
    lock.lock();
    status.Update(Prune());
    status.Update(OverTime());
    if (!status.ok()) Fail(status);
  }
  // No new call begins now.
  changed_.wait_for(lock, kCallGrace, [&] { return !calling_; });
  lock.unlock();
  (void)nccl_.comm_abort(communicator_);
  aborted_ = true;
}

}  // namespace longspan
