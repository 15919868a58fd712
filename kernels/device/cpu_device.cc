// The CPU back end of Stream and Device: a stream is a worker thread with a queue.
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/device/stream.h"
#include "kernels/device/stream_state.h"
#include "kernels/device/trace.h"

namespace longspan {

struct CpuStreamState : Stream::State {
  struct Work {
    const char* name;
    std::function<absl::Status()> body;
    bool always = false;  // runs on a failed stream too
    TraceKind kind = TraceKind::kKernel;
    bool traced = true;
  };

  CpuStreamState(Device& owner, const std::string& name)
      : State(owner), row(name), worker([this] { Run(); }) {}

  ~CpuStreamState() override {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    worker.join();
  }

  void Push(Work work) {
    {
      std::lock_guard lock(mutex);
      queue.push_back(std::move(work));
    }
    changed.notify_all();
  }

  void Launch(const char* name, std::function<absl::Status()> body) override {
    Push({name, std::move(body)});
  }

  Event RunOnHost(const char* name, std::function<absl::Status()> body) override {
    auto promise = std::make_shared<EventPromise>();
    Event event = promise->event();
    Push({name, [promise, body = std::move(body)] {
            absl::Status status = body();
            promise->Complete(status);
            return status;
          }});
    return event;
  }

  void CopyBytes(const void* from, void* to, int64_t bytes) override {
    Launch("copy", [from, to, bytes] {
      std::memcpy(to, from, static_cast<size_t>(bytes));
      return absl::OkStatus();
    });
  }

  Event Record() override {
    auto promise = std::make_shared<EventPromise>();
    Event event = promise->event();
    Push({.name = "record",
          .body =
              [this, promise] {
                promise->Complete(failure);
                return absl::OkStatus();
              },
          .always = true,
          .traced = false});
    return event;
  }

  void WaitFor(const Event& event) override {
    Push({.name = "wait",
          .body =
              [this, event] {
                const auto begin = std::chrono::steady_clock::now();
                absl::Status status = event.Wait();
                waited =
                    waited.load() +
                    std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
                return status;
              },
          .kind = TraceKind::kWait});
  }

  void BeginSpan(const TraceLabel& label) override {
    Push({.name = "begin span",
          .body =
              [this, label] {
                open.push_back({label, TraceClock()});
                return absl::OkStatus();
              },
          .always = true,
          .traced = false});
  }

  void EndSpan() override {
    Push({.name = "end span",
          .body =
              [this] {
                const OpenSpan span = open.back();
                open.pop_back();
                if (TraceRecorder* trace = RecorderOf(device)) {
                  trace->Record(span.label, trace->RowOf(row), span.begin_ns, TraceClock());
                }
                return absl::OkStatus();
              },
          .always = true,
          .traced = false});
  }

  double waited_seconds() const override { return waited.load(); }

  absl::Status Synchronize() override { return Record().Wait(); }

  std::string Current() const override { return current.load(); }

  // Runs `work`, with its time in the device's trace.
  absl::Status RunTraced(const Work& work, TraceRecorder& trace) {
    const int64_t begin = TraceClock();
    absl::Status status = work.body();
    TraceLabel label{work.name, work.kind};
    if (!open.empty()) label = label.Within(open.back().label);
    trace.Record(label, trace.RowOf(row), begin, TraceClock());
    return status;
  }

  void Run() {
    pthread_setname_np(pthread_self(), row.substr(0, 15).c_str());
    while (true) {
      Work work;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || !queue.empty(); });
        if (queue.empty()) return;
        work = std::move(queue.front());
        queue.pop_front();
      }
      if (!failure.ok() && !work.always) continue;
      current = work.name;
      TraceRecorder* trace = work.traced ? RecorderOf(device) : nullptr;
      absl::Status status = trace == nullptr ? work.body() : RunTraced(work, *trace);
      current = "";
      if (failure.ok() && !status.ok()) failure = std::move(status);
    }
  }

  struct OpenSpan {
    TraceLabel label;
    int64_t begin_ns = 0;
  };

  const std::string row;  // of the trace, and the thread's name
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool stop = false;
  absl::Status failure;           // touched by the worker alone
  std::atomic<double> waited{0};  // written by the worker alone
  std::atomic<const char*> current{""};
  std::vector<OpenSpan> open;  // spans; touched by the worker alone
  std::thread worker;          // last: starts when the rest exists
};

std::unique_ptr<Stream::State> Stream::State::MakeWorker(Device& device, const std::string& name) {
  return std::make_unique<CpuStreamState>(device, name);
}

class CpuDevice : public Device {
 public:
  explicit CpuDevice(int threads) : threads_(threads) {}
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string description() const override {
    return absl::StrCat("cpu, ", threads_.threads(),
                        threads_.threads() == 1 ? " thread" : " threads");
  }
  ThreadPool& threads() override { return threads_; }
  MemoryTable& memory() override { return memory_; }
  absl::Status CopyNow(const void* from, void* to, int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }

 private:
  Stream MakeStream(const std::string& name, StreamPriority) override {
    return Stream(std::make_unique<CpuStreamState>(*this, name));
  }

  ThreadPool threads_;
  MemoryTable memory_;
};

std::unique_ptr<Device> Device::OpenCpu(int threads) {
  return std::make_unique<CpuDevice>(threads);
}

}  // namespace longspan
