// Streams and events of the stand-in: a stream is a thread with a queue.
#ifndef LONGSPAN_TESTS_GPU_STAND_IN_STREAM_THREAD_H_
#define LONGSPAN_TESTS_GPU_STAND_IN_STREAM_THREAD_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace longspan::stand_in {

// A point of a stream: passed or not.
class Mark {
 public:
  void Pass() {
    std::lock_guard lock(mutex_);
    passed_ = true;
    at_ = std::chrono::steady_clock::now();
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return passed_; });
  }
  bool passed() {
    std::lock_guard lock(mutex_);
    return passed_;
  }
  std::chrono::steady_clock::time_point at() {
    std::lock_guard lock(mutex_);
    return at_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool passed_ = false;
  std::chrono::steady_clock::time_point at_;
};

class StreamThread {
 public:
  explicit StreamThread(int device) : device_(device), thread_([this] { Run(); }) {}
  ~StreamThread() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void Push(std::function<void()> work) {
    {
      std::lock_guard lock(mutex_);
      queue_.push_back(std::move(work));
    }
    changed_.notify_all();
  }
  std::shared_ptr<Mark> PushMark() {
    auto mark = std::make_shared<Mark>();
    Push([mark] { mark->Pass(); });
    return mark;
  }
  bool idle() {
    std::lock_guard lock(mutex_);
    return queue_.empty() && !running_;
  }
  int device() const { return device_; }

 private:
  void Run() {
    uint32_t random = 88172645u;
    while (true) {
      std::function<void()> work;
      {
        std::unique_lock lock(mutex_);
        running_ = false;
        changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;
        work = std::move(queue_.front());
        queue_.pop_front();
        running_ = true;
      }
      // Now and then a stream is late: whoever did not wait for it shows.
      random = random * 1664525u + 1013904223u;
      if (random >> 26 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
      work();
    }
  }

  const int device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stop_ = false, running_ = false;
  std::thread thread_;
};

struct EventState {
  std::mutex mutex;
  std::shared_ptr<Mark> mark;  // of the latest record; none: never recorded
  std::shared_ptr<Mark> Latest() {
    std::lock_guard lock(mutex);
    return mark;
  }
};

}  // namespace longspan::stand_in

#endif  // LONGSPAN_TESTS_GPU_STAND_IN_STREAM_THREAD_H_
