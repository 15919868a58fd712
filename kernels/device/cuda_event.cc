#include "kernels/device/cuda_event.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/device/cuda_status.h"

namespace longspan {
namespace {

// cudaSuccess, cudaErrorNotReady or the stream's error; "not ready" is no error to find later.
cudaError_t StateOf(const CudaEvent& event) {
  const cudaError_t state = cudaEventQuery(event.get());
  if (state != cudaSuccess) (void)cudaGetLastError();
  return state;
}

}  // namespace

CudaEventPool::~CudaEventPool() {
  for (cudaEvent_t event : free_) (void)cudaEventDestroy(event);
}

absl::StatusOr<CudaEvent> CudaEventPool::Take() {
  const auto owned = [this](cudaEvent_t event) {
    return CudaEvent(event, [pool = shared_from_this()](cudaEvent_t back) {
      const std::lock_guard lock(pool->mutex_);
      pool->free_.push_back(back);
    });
  };
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      cudaEvent_t event = free_.back();
      free_.pop_back();
      return owned(event);
    }
  }
  (void)cudaSetDevice(index_);
  cudaEvent_t event = nullptr;
  const absl::Status made =
      CudaStatus(cudaEventCreateWithFlags(&event, flags_), "cudaEventCreateWithFlags");
  if (!made.ok()) return made;
  return owned(event);
}

Event CudaStreamCore::Record() {
  const std::lock_guard lock(mutex_);
  return RecordLocked();
}

Event CudaStreamCore::RecordLocked() {
  absl::StatusOr<CudaEvent> event = absl::FailedPreconditionError("the CUDA stream has ended");
  if (stream_ != nullptr) event = events_->Take();
  absl::Status status = event.status();
  if (status.ok()) {
    (void)cudaSetDevice(index_);
    status = CudaStatus(cudaEventRecord(event->get(), stream_), "cudaEventRecord");
  }
  if (status.ok())
    return Event(std::make_shared<CudaPoint>(shared_from_this(), *std::move(event), waits_));
  FailLocked(status);
  EventPromise failed;
  failed.Complete(failure_);
  return failed.event();
}

void CudaStreamCore::AddWait(const Event& event) {
  const std::lock_guard lock(mutex_);
  open_waits_.emplace_back(++waits_, event);
}

void CudaStreamCore::Fail(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  FailLocked(status);
}

void CudaStreamCore::FailLocked(const absl::Status& status) {
  if (!failure_.ok()) return;
  failure_ = status;
  failed_at_ = waits_;
}

absl::Status CudaStreamCore::FailureUpTo(int64_t waits) {
  // Oldest first, so that what they depend on is known already when the next one is asked. Without
  // the lock: the outcome of a point is a question to its own stream.
  while (true) {
    std::pair<int64_t, Event> wait;
    {
      const std::lock_guard lock(mutex_);
      if (!failure_.ok() && failed_at_ <= waits) return failure_;
      if (open_waits_.empty() || open_waits_.front().first > waits) return absl::OkStatus();
      wait = open_waits_.front();
    }
    if (!wait.second.Done()) return absl::OkStatus();
    const absl::Status outcome = wait.second.Wait();
    const std::lock_guard lock(mutex_);
    if (open_waits_.empty() || open_waits_.front().first != wait.first) continue;
    open_waits_.pop_front();
    if (!outcome.ok() && (failure_.ok() || failed_at_ > wait.first)) {
      failure_ = outcome;
      failed_at_ = wait.first;
    }
  }
}

std::optional<Event> CudaStreamCore::Write(uint32_t* word, uint32_t value) {
  const std::lock_guard lock(mutex_);
  if (stream_ == nullptr) return std::nullopt;
  (void)cudaSetDevice(index_);
  const CUresult result = words_.write(stream_, reinterpret_cast<CUdeviceptr>(word), value,
                                       CU_STREAM_WRITE_VALUE_DEFAULT);
  if (result == CUDA_SUCCESS) return RecordLocked();
  FailLocked(absl::InternalError(
      absl::StrCat("CUDA: cuStreamWriteValue32: error ", static_cast<int>(result))));
  return std::nullopt;
}

bool CudaStreamCore::RunBeside(std::function<void()> body) {
  const std::lock_guard lock(mutex_);
  if (stream_ == nullptr) return false;
  if (beside_ == nullptr) beside_ = Stream::State::MakeWorker(device_, name_ + " events");
  beside_->Launch("event", [body = std::move(body)] {
    body();
    return absl::OkStatus();
  });
  return true;
}

void CudaStreamCore::Close() {
  (void)Failure();  // for events that are asked later
  std::unique_ptr<Stream::State> beside;
  std::deque<std::pair<int64_t, Event>> open_waits;  // streams may have waited for each other
  {
    const std::lock_guard lock(mutex_);
    stream_ = nullptr;
    beside.swap(beside_);
    open_waits.swap(open_waits_);
  }
}

bool CudaPoint::Done() {
  {
    const std::lock_guard lock(mutex_);
    if (outcome_.has_value()) return true;
  }
  const cudaError_t state = StateOf(event);
  if (state == cudaErrorNotReady) return false;
  (void)Resolve(state);
  return true;
}

absl::Status CudaPoint::Wait() {
  {
    const std::lock_guard lock(mutex_);
    if (outcome_.has_value()) return *outcome_;
  }
  return Resolve(cudaEventSynchronize(event.get()));
}

std::optional<absl::Status> CudaPoint::WaitFor(absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  while (!Done()) {
    if (absl::Now() >= end) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return Wait();
}

void CudaPoint::OnDone(std::function<void(const absl::Status&)> callback) {
  const bool later =
      !Done() && core->RunBeside([self = shared_from_this(), callback] { callback(self->Wait()); });
  if (!later) callback(Wait());
}

absl::Status CudaPoint::Resolve(cudaError_t error) {
  if (error != cudaSuccess) core->Fail(CudaStatus(error, "stream"));
  const absl::Status outcome = core->FailureUpTo(waits);
  const std::lock_guard lock(mutex_);
  if (!outcome_.has_value()) outcome_ = outcome;
  return *outcome_;
}

WaitWords::WaitWords(CudaMemory& memory) : memory_(memory) { AddBlock(); }  // for the first waits

void WaitWords::AddBlock() {
  auto* const block = static_cast<uint32_t*>(
      memory_.Allocate(kWordsABlock * sizeof(uint32_t), Placement::kPinnedHost));
  if (block == nullptr) return;
  blocks_.push_back(block);
  std::fill(block, block + kWordsABlock, 0);
  for (int64_t i = 0; i < kWordsABlock; ++i) free_.push_back({block + i, 0});
}

WaitWords::Wait WaitWords::Take() {
  const std::lock_guard lock(mutex_);
  // A word must not be raised by the host while a stream may still store an older value.
  std::erase_if(raising_, [&](const std::pair<Event, Wait>& each) {
    if (!each.first.Done()) return false;
    free_.push_back(each.second);
    return true;
  });
  if (free_.empty()) AddBlock();
  if (free_.empty()) return {};
  Wait wait = free_.back();
  free_.pop_back();
  ++wait.value;
  ++out_;
  return wait;
}

void WaitWords::Raise(const Wait& wait) {
  const std::lock_guard lock(mutex_);
  __atomic_store_n(wait.word, wait.value, __ATOMIC_RELEASE);
  // A wait that uses the word again wants more, so this one passes whenever its stream gets there.
  free_.push_back(wait);
  --out_;
  changed_.notify_all();
}

void WaitWords::RaiseAfter(const Wait& wait, const Event& raised) {
  const std::lock_guard lock(mutex_);
  raising_.emplace_back(raised, wait);
  --out_;
  changed_.notify_all();
}

void WaitWords::Close() {
  std::vector<std::pair<Event, Wait>> raising;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return out_ == 0; });
    raising.swap(raising_);
  }
  for (const auto& [raised, wait] : raising) (void)raised.Wait();
  for (uint32_t* block : blocks_) memory_.Free(block, Placement::kPinnedHost);
}

}  // namespace longspan
