#include "kernels/device/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/device/check.h"

namespace longspan {
namespace {

// How long an idle worker looks for the next job before it sleeps: about 20 microseconds, so that a
// row of short kernels does not pay a wake-up each.
constexpr int kSpins = 2000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

struct ThreadPool::State {
  int threads = 1;
  std::vector<std::thread> workers;
  std::mutex busy;  // held by the caller whose job runs

  // The job that runs. Written under `mutex` before `generation` moves.
  const std::function<void(int64_t)>* task = nullptr;
  int64_t count = 0;
  std::atomic<int64_t> next{0};
  std::atomic<int> working{0};

  std::mutex mutex;
  std::condition_variable start;
  std::atomic<uint64_t> generation{0};
  std::atomic<bool> stop{false};

  void Drain() {
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) (*task)(i);
  }

  void Work() {
    uint64_t seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins && generation.load() == seen && !stop.load(); ++spin)
        Pause();
      {
        std::unique_lock lock(mutex);
        start.wait(lock, [&] { return generation.load() != seen || stop.load(); });
        if (stop.load()) return;
        seen = generation.load();
      }
      Drain();
      working.fetch_sub(1);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  LONGSPAN_CHECK(threads >= 1, "a pool has at least one thread");
  state_->threads = threads;
  for (int i = 1; i < threads; ++i)
    state_->workers.emplace_back([state = state_.get()] { state->Work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->start.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::ParallelFor(int64_t count, const std::function<void(int64_t)>& task) {
  std::unique_lock busy(state_->busy, std::defer_lock);
  if (state_->workers.empty() || count <= 1 || !busy.try_lock()) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  {
    std::lock_guard lock(state_->mutex);
    state_->task = &task;
    state_->count = count;
    state_->next = 0;
    state_->working = static_cast<int>(state_->workers.size());
    state_->generation.fetch_add(1);
  }
  state_->start.notify_all();
  state_->Drain();
  // Every worker has to pass by, even if it found nothing to do: the job's fields are reused by the
  // next call.
  for (int spin = 0; state_->working.load() > 0; ++spin) {
    if (spin < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace longspan
