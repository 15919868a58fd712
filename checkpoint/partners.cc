#include "checkpoint/partners.h"

#include <pthread.h>
#include <sched.h>

#include <utility>

namespace longspan {

KeepingThread::KeepingThread(Keep keep) : keep_(std::move(keep)), thread_([this] { Serve(); }) {}

KeepingThread::~KeepingThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void KeepingThread::Expect(const SavedStep& step, const absl::Status& mine) {
  const std::lock_guard lock(mutex_);
  expected_.push_back({step, mine});
  changed_.notify_all();
}

absl::Status KeepingThread::Await(const SavedStep& step) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return kept_.count(step.tag) > 0; });
  absl::Status status = kept_[step.tag];
  kept_.erase(step.tag);
  return status;
}

void KeepingThread::Serve() {
  pthread_setname_np(pthread_self(), "ckpt-partner");
  const sched_param none{};
  pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
  while (true) {
    Expected expected;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return ending_ || !expected_.empty(); });
      if (expected_.empty()) return;
      expected = std::move(expected_.front());
      expected_.pop_front();
    }
    const absl::Status status = keep_(expected.step, expected.mine);
    const std::lock_guard lock(mutex_);
    kept_[expected.step.tag] = status;
    changed_.notify_all();
  }
}

}  // namespace longspan
