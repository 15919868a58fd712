// ThreadPool: the compute threads of one rank.
//
// ParallelFor hands out numbered tasks. Which thread runs which task is not fixed, so a kernel that
// wants the same bits on any number of threads cuts its work into tasks whose number depends on the
// shapes alone.
//
// Thread-safety: ParallelFor may be called from several threads; a call that finds the pool busy
// runs on its own thread.
#ifndef LONGSPAN_KERNELS_DEVICE_THREAD_POOL_H_
#define LONGSPAN_KERNELS_DEVICE_THREAD_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace longspan {

class ThreadPool {
 public:
  // `threads` >= 1 counts the calling thread: a pool of 1 starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // Calls task(0) ... task(count - 1), each once, and returns when all are done. The caller works
  // too.
  void ParallelFor(int64_t count, const std::function<void(int64_t)>& task);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_THREAD_POOL_H_
