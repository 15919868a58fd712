// CudaStreamState: a CUDA stream as a Stream. Private to kernels/device.
#ifndef LONGSPAN_KERNELS_DEVICE_CUDA_STREAM_H_
#define LONGSPAN_KERNELS_DEVICE_CUDA_STREAM_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "kernels/device/cuda_event.h"
#include "kernels/device/cuda_memory.h"
#include "kernels/device/stream_state.h"
#include "kernels/device/trace.h"

namespace longspan {

// When a stream passes a CUDA event, and what the host knows of that by itself.
struct TimedPoint {
  CudaEvent event;
  int64_t launched_ns = 0;           // TraceClock: not before
  int64_t passed_by_ns = INT64_MAX;  // nor after
};

// One GPU's clock beside TraceClock. Thread-safe.
class CudaClock {
 public:
  CudaClock(int index, std::shared_ptr<CudaEventPool> timed) : index_(index), timed_(timed) {}
  ~CudaClock();

  // A moment that both clocks know: a timed event, and when it passed.
  struct Anchor {
    CudaEvent event;
    int64_t ns = 0;
  };
  // The newest one; the first is made when first asked for. Waits for a stream without work.
  std::shared_ptr<const Anchor> anchor();
  // Makes another one, so that the clocks have no time to drift apart.
  void Renew();

 private:
  std::shared_ptr<const Anchor> Measure();

  const int index_;
  const std::shared_ptr<CudaEventPool> timed_;
  std::mutex mutex_;
  cudaStream_t stream_ = nullptr;
  std::shared_ptr<const Anchor> anchor_;
};

struct CudaStreamState;

// What the streams of one GPU share.
struct CudaStreams {
  CudaStreams(int gpu, CudaMemory& source, const CudaWords& functions)
      : index(gpu),
        memory(source),
        words(functions),
        points(
            std::make_shared<CudaEventPool>(gpu, cudaEventDisableTiming | cudaEventBlockingSync)),
        timed(std::make_shared<CudaEventPool>(gpu, cudaEventDefault)),
        clock(gpu, timed) {}

  const int index;
  CudaMemory& memory;
  const CudaWords words;
  const std::shared_ptr<CudaEventPool> points, timed;
  CudaClock clock;
  std::mutex mutex;
  std::set<CudaStreamState*> alive;
};

struct CudaStreamState : Stream::State {
  CudaStreamState(Device& owner, CudaStreams& shared, const std::string& label,
                  StreamPriority priority);
  ~CudaStreamState() override;

  void Launch(const char* work, std::function<absl::Status()>) override;
  Event RunOnHost(const char* work, std::function<absl::Status()> body) override;
  void CopyBytes(const void* from, void* to, int64_t bytes) override;
  Event Record() override { return core->Record(); }
  void WaitFor(const Event& event) override;
  absl::Status Synchronize() override;
  void Fail(const absl::Status& status) override { core->Fail(status); }
  std::function<void(const absl::Status&)> Failer() const override {
    return [core = core](const absl::Status& status) { core->Fail(status); };
  }
  double waited_seconds() const override;
  std::string Current() const override;
  void* native() const override;
  void BeginSpan(const TraceLabel& label) override;
  void EndSpan() override;

  // Hands the recorder the spans that the stream has passed.
  void CollectTrace(TraceRecorder& recorder);

 private:
  struct OpenSpan {
    TraceLabel label;
    TimedPoint begin;
  };
  struct Span {
    TraceLabel label;
    TimedPoint begin, end;
    std::shared_ptr<const CudaClock::Anchor> anchor;
  };
  // A wait of the stream, from its coming there to its going on.
  struct TimedWait {
    CudaEvent begin, end;
  };

  void Await(const Event& event);
  // Until the host raises the word, or has another stream do so.
  void AwaitWord(const Event& event);
  TimedPoint Time();
  void AddSpan(TraceLabel label, TimedPoint begin, TimedPoint end);
  // Under the mutex.
  void CountWaits() const;
  static int64_t PassedAt(const TimedPoint& point, const CudaClock::Anchor& anchor);

  CudaStreams& streams;
  const std::string name;
  cudaStream_t stream = nullptr;  // nullptr: it could not be made, and has failed
  const std::shared_ptr<WaitWords> words;
  std::shared_ptr<CudaStreamCore> core;

  mutable std::mutex mutex;
  mutable std::deque<TimedWait> waits;  // not yet counted
  mutable double waited = 0;            // seconds
  std::vector<OpenSpan> open;
  std::deque<Span> spans_ended;  // as launched; the stream may not have passed them

  std::mutex worker_mutex;
  std::unique_ptr<Stream::State> worker;  // made when the host is first needed
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_CUDA_STREAM_H_
