// The WriteEngine over io_uring: submission from any thread under a lock, completion on one thread.
#include <liburing.h>
#include <pthread.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/write_engine.h"

namespace longspan {
namespace {

// The kernel takes at most a GiB as one registered buffer. Memory is cut at multiples of this from
// its beginning on, which chunks of a power of two of bytes do not cross.
constexpr int64_t kRegisteredBytes = int64_t{512} << 20;

class IoUring : public WriteEngine {
 public:
  explicit IoUring(int depth) : depth_(depth) {}
  ~IoUring() override {
    if (!open_) return;
    {
      std::unique_lock lock(mutex_);
      stop_ = true;
      if (under_way_ == 0 && waiting_.empty()) Wake();
    }
    reaper_.join();
    io_uring_queue_exit(&ring_);
  }
  IoUring(const IoUring&) = delete;
  IoUring& operator=(const IoUring&) = delete;

  // 0 or an errno.
  int Open() {
    // One more entry than writes: the one that wakes the reaper.
    if (const int code = io_uring_queue_init(static_cast<unsigned>(depth_) + 1, &ring_, 0);
        code < 0) {
      return -code;
    }
    open_ = true;
    reaper_ = std::thread([this] { Reap(); });
    return 0;
  }

  void Submit(WriteRequest request) override {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(new Write{std::move(request), 0});
    Pump();
  }

  void RegisterMemory(const void* data, int64_t bytes) override {
    const std::lock_guard lock(mutex_);
    const auto* begin = static_cast<const char*>(data);
    for (int64_t at = 0; at < bytes; at += kRegisteredBytes) {
      wanted_.push_back({const_cast<char*>(begin + at),
                         static_cast<size_t>(std::min(kRegisteredBytes, bytes - at))});
      owners_.push_back(data);
    }
    Register();
  }

  void WithdrawMemory(const void* data) override {
    const std::lock_guard lock(mutex_);
    size_t kept = 0;
    for (size_t i = 0; i < wanted_.size(); ++i) {
      if (owners_[i] == data) continue;
      owners_[kept] = owners_[i];
      wanted_[kept++] = wanted_[i];
    }
    owners_.resize(kept);
    wanted_.resize(kept);
    Register();
  }

  std::string description() const override {
    const std::lock_guard lock(mutex_);
    return absl::StrCat(
        "io_uring, ", depth_, " writes at a time",
        registered_.empty()
            ? (refusal_ == 0
                   ? ""
                   : absl::StrCat(" (buffers not registered: ", std::strerror(refusal_), ")"))
            : ", registered buffers");
  }

 private:
  struct Write {
    WriteRequest request;
    int64_t written = 0;
  };

  // The functions below need the mutex held.

  // Makes the kernel's list of buffers the wanted one. Requests under way keep what they use.
  void Register() {
    if (!registered_.empty()) io_uring_unregister_buffers(&ring_);
    registered_.clear();
    if (wanted_.empty()) return;
    const int code =
        io_uring_register_buffers(&ring_, wanted_.data(), static_cast<unsigned>(wanted_.size()));
    refusal_ = -code;
    if (code == 0) registered_ = wanted_;
  }

  int BufferOf(const char* data, int64_t bytes) const {
    for (size_t i = 0; i < registered_.size(); ++i) {
      const auto* begin = static_cast<const char*>(registered_[i].iov_base);
      if (data >= begin && data + bytes <= begin + registered_[i].iov_len) {
        return static_cast<int>(i);
      }
    }
    return -1;
  }

  void Pump() {
    bool added = false;
    while (under_way_ < depth_ && !waiting_.empty()) {
      io_uring_sqe* entry = io_uring_get_sqe(&ring_);
      if (entry == nullptr) break;
      Write* write = waiting_.front();
      waiting_.pop_front();
      const char* data = write->request.data + write->written;
      const int64_t bytes = write->request.bytes - write->written;
      const auto offset = static_cast<uint64_t>(write->request.offset + write->written);
      const auto count = static_cast<unsigned>(std::min(bytes, int64_t{1} << 30));
      const int buffer = BufferOf(data, bytes);
      if (buffer >= 0) {
        io_uring_prep_write_fixed(entry, write->request.descriptor, data, count, offset, buffer);
      } else {
        io_uring_prep_write(entry, write->request.descriptor, data, count, offset);
      }
      io_uring_sqe_set_data(entry, write);
      ++under_way_;
      added = true;
    }
    if (added) SubmitEntries();
  }

  void SubmitEntries() {
    // Entries that the kernel did not take for lack of memory go along with the next submission,
    // or here after a moment: a write must not be forgotten.
    while (io_uring_sq_ready(&ring_) > 0) {
      if (io_uring_submit(&ring_) < 0) std::this_thread::yield();
    }
  }

  void Wake() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    io_uring_prep_nop(entry);
    io_uring_sqe_set_data(entry, nullptr);
    SubmitEntries();
  }

  void Reap() {
    pthread_setname_np(pthread_self(), "ckpt-io_uring");
    while (true) {
      io_uring_cqe* completion = nullptr;
      if (io_uring_wait_cqe(&ring_, &completion) < 0) continue;  // interrupted
      auto* write = static_cast<Write*>(io_uring_cqe_get_data(completion));
      const int result = completion->res;
      io_uring_cqe_seen(&ring_, completion);
      if (write == nullptr) return;  // woken to stop
      Ended(write, result);
    }
  }

  // On the reaper, without the mutex.
  void Ended(Write* write, int result) {
    const bool again = result == -EINTR || result == -EAGAIN;
    // Locked before `write` is looked at: that it was filled in earlier, only the kernel could
    // tell.
    std::unique_lock lock(mutex_);
    if (result > 0) write->written += result;
    const bool more = write->written < write->request.bytes;
    if (again || (result > 0 && more)) {
      --under_way_;
      waiting_.push_front(write);
      Pump();
      return;
    }
    lock.unlock();
    write->request.done(result < 0 ? -result : (more ? EIO : 0));
    delete write;
    lock.lock();
    --under_way_;
    Pump();
    if (stop_ && under_way_ == 0 && waiting_.empty()) Wake();
  }

  const int depth_;
  io_uring ring_ = {};
  bool open_ = false;
  mutable std::mutex mutex_;
  std::deque<Write*> waiting_;
  int under_way_ = 0;
  bool stop_ = false;
  std::vector<iovec> wanted_, registered_;
  std::vector<const void*> owners_;  // of wanted_
  int refusal_ = 0;                  // errno of the last registration
  std::thread reaper_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WriteEngine>> OpenIoUring(int depth) {
  auto engine = std::make_unique<IoUring>(depth);
  if (const int error = engine->Open(); error != 0) {
    return absl::UnavailableError(absl::StrCat("io_uring is refused: ", std::strerror(error)));
  }
  return engine;
}

}  // namespace longspan
