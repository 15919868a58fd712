// The WriteEngine that works everywhere: a queue and a few threads that call pwrite.
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/write_engine.h"

namespace longspan {
namespace {

// 0 or an errno.
int WriteAll(const WriteRequest& request) {
  int64_t written = 0;
  while (written < request.bytes) {
    const ssize_t n = pwrite(request.descriptor, request.data + written,
                             static_cast<size_t>(request.bytes - written),
                             static_cast<off_t>(request.offset + written));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return EIO;
    written += n;
  }
  // Where the bytes went to the page cache, the disk begins with them now rather than at the sync;
  // errors show at the sync.
  sync_file_range(request.descriptor, request.offset, request.bytes, SYNC_FILE_RANGE_WRITE);
  return 0;
}

class WriteThreads : public WriteEngine {
 public:
  explicit WriteThreads(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
  }
  ~WriteThreads() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void Submit(WriteRequest request) override {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(request));
    }
    changed_.notify_one();
  }

  std::string description() const override {
    return absl::StrCat(threads_.size(), " threads that call pwrite");
  }

 private:
  void Run() {
    pthread_setname_np(pthread_self(), "ckpt-pwrite");
    while (true) {
      WriteRequest request;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;
        request = std::move(queue_.front());
        queue_.pop_front();
      }
      request.done(WriteAll(request));
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<WriteRequest> queue_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<WriteEngine> StartWriteThreads(int threads) {
  return std::make_unique<WriteThreads>(threads);
}

}  // namespace longspan
