#include "process_transport.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/device/check.h"
#include "parallel/transport/tagged_messages.h"

namespace longspan {
namespace {

// A message on a socket: the two lengths, the tag, the bytes.
struct Head {
  int64_t tag = 0, bytes = 0;
};

bool ReadAll(int socket, char* to, size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = recv(socket, to, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteAll(int socket, const char* from, size_t bytes) {
  while (bytes > 0) {
    const ssize_t sent = send(socket, from, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    from += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

class ProcessTransport : public Transport {
 public:
  // `sockets` by rank; -1 for this one.
  ProcessTransport(int rank, std::vector<int> sockets)
      : rank_(rank), sockets_(std::move(sockets)), gone_(sockets_.size(), false) {
    LONGSPAN_CHECK(pipe(stop_) == 0, "a pipe");
    reader_ = std::thread([this] { Read(); });
  }
  ~ProcessTransport() override {
    close(stop_[1]);
    reader_.join();
    close(stop_[0]);
    for (int socket : sockets_) {
      if (socket >= 0) close(socket);
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(sockets_.size()); }
  int ranks_on_node() const override { return size(); }
  int rank_on_node() const override { return rank_; }
  std::string name() const override { return "processes"; }

  Event Exchange(std::vector<Message>, std::vector<Message>, Stream&) override {
    LONGSPAN_CHECK(false, "host calls alone");
    return Event();
  }
  void AllReduceSum(TensorView, Stream&) override { LONGSPAN_CHECK(false, "host calls alone"); }
  void ReduceScatterSum(TensorView, TensorView, Stream&) override {
    LONGSPAN_CHECK(false, "host calls alone");
  }
  void AllGather(TensorView, TensorView, Stream&) override {
    LONGSPAN_CHECK(false, "host calls alone");
  }

  absl::StatusOr<std::vector<std::string>> AllGatherBytes(std::string_view bytes) override {
    const std::string tag = absl::StrCat("collective ", calls_++);
    for (int peer = 0; peer < size(); ++peer) {
      if (absl::Status status = SendTagged(peer, tag, bytes); !status.ok()) return status;
    }
    std::vector<std::string> all;
    for (int peer = 0; peer < size(); ++peer) {
      absl::StatusOr<std::string> one = ReceiveTagged(peer, tag, absl::InfiniteDuration());
      if (!one.ok()) return one.status();
      all.push_back(*std::move(one));
    }
    return all;
  }
  absl::StatusOr<std::string> BroadcastBytes(std::string_view bytes, int root) override {
    absl::StatusOr<std::vector<std::string>> all =
        AllGatherBytes(rank_ == root ? bytes : std::string_view());
    if (!all.ok()) return all.status();
    return (*all)[static_cast<size_t>(root)];
  }
  absl::Status Barrier() override { return AllGatherBytes("").status(); }

  absl::Status SendTagged(int peer, std::string_view tag, std::string_view bytes) override {
    if (peer == rank_) {
      const std::lock_guard lock(mutex_);
      arrived_.Add(rank_, tag, std::string(bytes));
      changed_.notify_all();
      return absl::OkStatus();
    }
    const Head head{static_cast<int64_t>(tag.size()), static_cast<int64_t>(bytes.size())};
    std::string whole(reinterpret_cast<const char*>(&head), sizeof(head));
    whole.append(tag).append(bytes);
    const std::lock_guard lock(send_mutex_);
    if (WriteAll(sockets_[peer], whole.data(), whole.size())) return absl::OkStatus();
    return Gone(peer);
  }
  absl::StatusOr<std::string> ReceiveTagged(int peer, std::string_view tag,
                                            absl::Duration timeout) override {
    std::unique_lock lock(mutex_);
    const auto deadline = std::chrono::steady_clock::now() +
                          absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24)));
    while (true) {
      if (std::optional<std::string> bytes = arrived_.Take(peer, tag)) return *bytes;
      if (gone_[peer]) return Gone(peer);
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        return absl::DeadlineExceededError(absl::StrCat("nothing from rank ", peer));
      }
    }
  }
  void DropTagged(std::string_view prefix) override {
    const std::lock_guard lock(mutex_);
    arrived_.Drop(prefix);
  }
  void Abort(const std::string&) override { _exit(70); }
  int64_t exchanged_bytes() const override { return 0; }

 private:
  static absl::Status Gone(int rank) {
    return absl::UnavailableError(absl::StrCat("rank ", rank, " has left the job"));
  }

  void Read() {
    while (true) {
      std::vector<pollfd> polled = {{stop_[0], POLLIN, 0}};
      std::vector<int> peers = {-1};
      {
        const std::lock_guard lock(mutex_);
        for (int peer = 0; peer < size(); ++peer) {
          if (sockets_[peer] < 0 || gone_[peer]) continue;
          polled.push_back({sockets_[peer], POLLIN, 0});
          peers.push_back(peer);
        }
      }
      if (poll(polled.data(), polled.size(), -1) < 0) continue;
      if (polled[0].revents != 0) return;
      for (size_t i = 1; i < polled.size(); ++i) {
        if (polled[i].revents == 0) continue;
        Head head;
        std::string tag, bytes;
        bool whole = ReadAll(sockets_[peers[i]], reinterpret_cast<char*>(&head), sizeof(head));
        if (whole) {
          tag.resize(head.tag);
          bytes.resize(head.bytes);
          whole = ReadAll(sockets_[peers[i]], tag.data(), tag.size()) &&
                  ReadAll(sockets_[peers[i]], bytes.data(), bytes.size());
        }
        const std::lock_guard lock(mutex_);
        if (whole) {
          arrived_.Add(peers[i], tag, std::move(bytes));
        } else {
          gone_[peers[i]] = true;
        }
        changed_.notify_all();
      }
    }
  }

  const int rank_;
  const std::vector<int> sockets_;
  int stop_[2] = {-1, -1};
  std::mutex send_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  TaggedMessages arrived_;
  std::vector<bool> gone_;
  int64_t calls_ = 0;
  std::thread reader_;
};

}  // namespace

ProcessesEnd RunProcesses(int ranks, const std::function<int(Transport&)>& body,
                          const ProcessOptions& options) {
  std::vector<std::vector<int>> sockets(ranks, std::vector<int>(ranks, -1));
  for (int a = 0; a < ranks; ++a) {
    for (int b = a + 1; b < ranks; ++b) {
      int pair[2];
      LONGSPAN_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "a pair of sockets");
      sockets[a][b] = pair[0];
      sockets[b][a] = pair[1];
    }
  }
  std::fflush(nullptr);
  std::vector<pid_t> processes;
  for (int rank = 0; rank < ranks; ++rank) {
    const pid_t process = fork();
    LONGSPAN_CHECK(process >= 0, "fork");
    if (process == 0) {
      for (int other = 0; other < ranks; ++other) {
        for (int socket : sockets[other]) {
          if (other != rank && socket >= 0) close(socket);
        }
      }
      int end = 0;
      {
        ProcessTransport transport(rank, sockets[rank]);
        end = body(transport);
      }
      std::fflush(nullptr);
      _exit(end);
    }
    processes.push_back(process);
  }
  for (const auto& row : sockets) {
    for (int socket : row) {
      if (socket >= 0) close(socket);
    }
  }
  if (options.running) options.running(processes);

  ProcessesEnd end;
  end.ends.assign(ranks, 0);
  std::vector<bool> ended(ranks, false);
  int left = ranks;
  const absl::Time deadline = absl::Now() + options.timeout;
  while (left > 0) {
    bool any = false;
    for (int rank = 0; rank < ranks; ++rank) {
      int status = 0;
      if (ended[rank] || waitpid(processes[rank], &status, WNOHANG) != processes[rank]) continue;
      end.ends[rank] = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
      ended[rank] = any = true;
      --left;
    }
    if (left == 0 || any) continue;
    if (absl::Now() >= deadline && end.time_out.empty()) {
      end.time_out =
          absl::StrCat("the ranks did not end within ", absl::FormatDuration(options.timeout), ":");
      for (int rank = 0; rank < ranks; ++rank) {
        absl::StrAppend(&end.time_out, "\n  rank ", rank, ": ",
                        ended[rank]     ? "has ended"
                        : options.where ? options.where(rank)
                                        : "still runs");
        if (!ended[rank]) kill(processes[rank], SIGKILL);
      }
    }
    absl::SleepFor(absl::Microseconds(300));
  }
  return end;
}

}  // namespace longspan
