// Events of CUDA streams, as Event and Stream know them: points of a stream that other streams wait
// for by themselves, and words in memory for what only the host can tell a stream. Private to
// kernels/device.
#ifndef LONGSPAN_KERNELS_DEVICE_CUDA_EVENT_H_
#define LONGSPAN_KERNELS_DEVICE_CUDA_EVENT_H_

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/cuda_memory.h"
#include "kernels/device/stream_state.h"

namespace longspan {

// A cudaEvent_t that goes back to its pool.
using CudaEvent = std::shared_ptr<CUevent_st>;

// CUDA events of one GPU, made when there is none to use again. Thread-safe; events keep it alive.
class CudaEventPool : public std::enable_shared_from_this<CudaEventPool> {
 public:
  // `flags` of cudaEventCreateWithFlags.
  CudaEventPool(int index, unsigned flags) : index_(index), flags_(flags) {}
  ~CudaEventPool();
  absl::StatusOr<CudaEvent> Take();

 private:
  const int index_;
  const unsigned flags_;
  std::mutex mutex_;
  std::vector<cudaEvent_t> free_;
};

// The driver's functions, by name, so that the program needs no libcuda to start.
struct CudaWords {
  PFN_cuStreamWaitValue32_v11070 wait = nullptr;
  PFN_cuStreamWriteValue32_v11070 write = nullptr;
};

// What a CUDA stream shares with the events recorded on it, which may outlive it. Thread-safe.
class CudaStreamCore : public std::enable_shared_from_this<CudaStreamCore> {
 public:
  CudaStreamCore(Device& device, int index, cudaStream_t stream, const CudaWords& words,
                 std::shared_ptr<CudaEventPool> events, std::string name)
      : device_(device),
        index_(index),
        stream_(stream),
        words_(words),
        events_(std::move(events)),
        name_(std::move(name)) {}

  // A point behind everything launched so far. The stream has not ended. Where that cannot be had
  // the stream fails, and so does the event.
  Event Record();
  // From now on the stream's failures are those of `event` too, once it is done. Call it before the
  // stream is made to wait.
  void AddWait(const Event& event);
  void Fail(const absl::Status& status);
  // The first failure among what the stream was told and the first `waits` events that it waits
  // for; those of them that are not done are left out.
  absl::Status FailureUpTo(int64_t waits);
  absl::Status Failure() { return FailureUpTo(INT64_MAX); }

  // The stream stores `value` at `word` when everything launched so far is done; the event tells
  // when. No value: the stream has ended, with all its work, or fails.
  std::optional<Event> Write(uint32_t* word, uint32_t value);
  // Runs `body` on a thread beside the stream, which may wait for what is launched already. False
  // where the stream has ended.
  bool RunBeside(std::function<void()> body);
  // The stream has passed all that was launched; nobody launches any more.
  void Close();

 private:
  // Under the mutex.
  Event RecordLocked();
  void FailLocked(const absl::Status& status);

  Device& device_;
  const int index_;
  std::mutex mutex_;
  cudaStream_t stream_;  // nullptr: it has ended, or could not be made
  const CudaWords words_;
  const std::shared_ptr<CudaEventPool> events_;
  const std::string name_;
  std::unique_ptr<Stream::State> beside_;  // made when first needed
  int64_t waits_ = 0;
  std::deque<std::pair<int64_t, Event>> open_waits_;  // not known to be done, by number
  absl::Status failure_;
  int64_t failed_at_ = 0;  // the number of waits before the failure
};

// A point of a CUDA stream.
struct CudaPoint : Event::State, std::enable_shared_from_this<CudaPoint> {
  CudaPoint(std::shared_ptr<CudaStreamCore> on, CudaEvent at, int64_t waits_before)
      : core(std::move(on)), event(std::move(at)), waits(waits_before) {}

  bool Done() override;
  absl::Status Wait() override;
  std::optional<absl::Status> WaitFor(absl::Duration timeout) override;
  void OnDone(std::function<void(const absl::Status&)> callback) override;

  const std::shared_ptr<CudaStreamCore> core;
  const CudaEvent event;
  const int64_t waits;  // of the stream, before this point

 private:
  // The stream has passed the point, or failed with `error`.
  absl::Status Resolve(cudaError_t error);
  std::mutex mutex_;
  std::optional<absl::Status> outcome_;
};

// Words of pinned memory at which one stream waits, each for a value of its own, so that waits may
// be raised in any order, by the host or by another stream. Thread-safe.
class WaitWords {
 public:
  explicit WaitWords(CudaMemory& memory);
  WaitWords(const WaitWords&) = delete;
  WaitWords& operator=(const WaitWords&) = delete;

  // A wait passes once the word holds at least the value.
  struct Wait {
    uint32_t* word = nullptr;
    uint32_t value = 0;
  };
  // Without a word where there is no pinned memory for one.
  Wait Take();
  // By the host.
  void Raise(const Wait& wait);
  // By a stream, which has been told to; done when `raised` is.
  void RaiseAfter(const Wait& wait, const Event& raised);
  // Once all waits are raised: gives the words back. Who raised them may still hold this.
  void Close();

 private:
  // Under the mutex, or before anybody else knows of this.
  void AddBlock();

  static constexpr int64_t kWordsABlock = 64;
  CudaMemory& memory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint32_t*> blocks_;
  std::vector<Wait> free_;  // with the last value of each word
  std::vector<std::pair<Event, Wait>> raising_;
  int64_t out_ = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_CUDA_EVENT_H_
