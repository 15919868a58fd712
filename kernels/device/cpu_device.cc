// The CPU back end of Stream and Device: a stream is a worker thread with a queue.
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/device/stream.h"
#include "kernels/device/stream_state.h"

namespace longspan {

struct CpuStreamState : Stream::State {
  struct Work {
    const char* name;
    std::function<absl::Status()> body;
    bool always = false;  // runs on a failed stream too
  };

  CpuStreamState(Device& owner, const std::string& name)
      : State(owner), worker([this, name] { Run(name); }) {}

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

  Event Record() override {
    auto promise = std::make_shared<EventPromise>();
    Event event = promise->event();
    Push({"record",
          [this, promise] {
            promise->Complete(failure);
            return absl::OkStatus();
          },
          /*always=*/true});
    return event;
  }

  void WaitFor(const Event& event) override {
    Push({"wait", [this, event] {
            const auto begin = std::chrono::steady_clock::now();
            absl::Status status = event.Wait();
            waited =
                waited.load() +
                std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
            return status;
          }});
  }

  double waited_seconds() const override { return waited.load(); }

  absl::Status Synchronize() override { return Record().Wait(); }

  std::string Current() const override { return current.load(); }

  void Run(const std::string& name) {
    pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
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
      absl::Status status = work.body();
      current = "";
      if (failure.ok() && !status.ok()) failure = std::move(status);
    }
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool stop = false;
  absl::Status failure;           // touched by the worker alone
  std::atomic<double> waited{0};  // written by the worker alone
  std::atomic<const char*> current{""};
  std::thread worker;  // last: starts when the rest exists
};

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
  Stream CreateStream(const std::string& name) override {
    return Stream(std::make_unique<CpuStreamState>(*this, name));
  }

 private:
  ThreadPool threads_;
  MemoryTable memory_;
};

std::unique_ptr<Device> Device::OpenCpu(int threads) {
  return std::make_unique<CpuDevice>(threads);
}

}  // namespace longspan
