// NcclWatch: ends operations of NCCL that can no longer end by themselves.
//
// NCCL waits for ever for a rank that does not come, and tells of a broken connection only when it
// is asked. A thread asks several times a second, and measures for how long the operation that runs
// has been running. On an error or a time-out the streams of all operations under way fail with a
// message, and then the communicator is aborted, which ends what hangs on the GPU.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_NCCL_WATCH_H_
#define LONGSPAN_PARALLEL_TRANSPORT_NCCL_WATCH_H_

#include <cuda_runtime_api.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/device/stream.h"
#include "parallel/transport/nccl_library.h"

namespace longspan {

// What is known of an operation when it has to be named.
struct NcclOperation {
  const char* name = "";      // static storage
  int64_t bytes = 0;          // of a collective's larger side, or of all messages
  std::vector<int> to, from;  // peers; none of either: all ranks
};

// Issue is for one thread at a time.
class NcclWatch {
 public:
  struct Options {
    // For how long one operation may run, waiting for slower ranks included, and a call of NCCL may
    // take. What a stream still has to do before it does not count.
    absl::Duration timeout = absl::InfiniteDuration();
    // Asked by the watch's thread: whether the job goes on. An error ends what is under way.
    std::function<absl::Status()> job;
  };

  // Of this rank's communicator, made by blocking calls on the GPU that is current. The watch alone
  // may abort it; whoever made it destroys it, unless aborted() after Stop.
  NcclWatch(const NcclLibrary& library, ncclComm_t communicator, int rank, Options options);
  ~NcclWatch();
  NcclWatch(const NcclWatch&) = delete;
  NcclWatch& operator=(const NcclWatch&) = delete;

  // Issues an operation: `call` calls NCCL, with `stream`. Unavailable, without a call, once the
  // watch has ended the communicator; an error of the call ends it too.
  absl::Status Issue(NcclOperation operation, const Stream& stream,
                     const std::function<absl::Status()>& call);

  // Ends the watch, before the communicator is destroyed. What has failed so far, if anything.
  absl::Status Stop();
  bool aborted() const { return aborted_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Pending {
    NcclOperation operation;
    std::function<void(const absl::Status&)> fail;
    cudaEvent_t begun = nullptr, ended = nullptr;
    bool returned = false;    // from the call: `ended` is recorded
    bool running = false;     // `begun` is passed
    Clock::time_point since;  // of the call; of running, once seen
  };

  void Watch();
  // What ends the communicator, if anything does.
  absl::Status AsyncError();
  std::string Describe() const;
  // Under the lock: forgets what has ended; the oldest that has not is the one that runs.
  absl::Status Prune();
  absl::Status OverTime();
  void Fail(const absl::Status& status);
  absl::Status HaveEvents(size_t count);
  void StopThread();

  const NcclLibrary& nccl_;
  const ncclComm_t communicator_;
  const int rank_;
  const Options options_;
  int device_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Pending> pending_;      // oldest first
  std::vector<cudaEvent_t> events_;  // free ones
  bool calling_ = false;
  bool stop_ = false;
  absl::Status failure_;
  bool aborted_ = false;  // written by the thread at its end
  std::thread thread_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_NCCL_WATCH_H_
