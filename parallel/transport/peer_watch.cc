#include "parallel/transport/peer_watch.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

constexpr std::chrono::milliseconds kPeriod(500);

// Host and start of the system: two containers may share a host name, but not a running kernel's
// idea of it.
std::string Node() {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return absl::StrCat(host, " ", boot);
}

// Gone, or a zombie that nobody has asked about yet.
bool Ended(pid_t process) {
  if (kill(process, 0) != 0) return errno == ESRCH;
  std::ifstream status(absl::StrCat("/proc/", process, "/stat"));
  std::string line;
  std::getline(status, line);
  // "pid (name) state ...": the name may hold anything.
  const size_t name_end = line.rfind(')');
  return name_end != std::string::npos && name_end + 2 < line.size() && line[name_end + 2] == 'Z';
}

}  // namespace

struct PeerWatch::State {
  struct Peer {
    int rank;
    pid_t process;
  };
  std::vector<Peer> peers;  // by rank
  int rank = 0;
  std::function<void(int, bool)> on_death;
  std::mutex mutex;
  std::condition_variable changed;
  bool stop = false;
  std::thread thread;

  void Watch() {
    std::unique_lock lock(mutex);
    while (!changed.wait_for(lock, kPeriod, [&] { return stop; })) {
      int dead = -1, lowest = rank;
      for (const Peer& peer : peers) {
        const bool ended = Ended(peer.process);
        if (ended && dead < 0) dead = peer.rank;
        if (!ended) lowest = std::min(lowest, peer.rank);
      }
      if (dead < 0) continue;
      on_death(dead, lowest == rank);
      return;
    }
  }
};

PeerWatch::PeerWatch(std::unique_ptr<State> state) : state_(std::move(state)) {}

PeerWatch::~PeerWatch() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->changed.notify_all();
  if (state_->thread.joinable()) state_->thread.join();
}

absl::StatusOr<std::unique_ptr<PeerWatch>> PeerWatch::Start(
    Transport& transport, std::function<void(int, bool)> on_death) {
  const std::string node = Node();
  absl::StatusOr<std::vector<std::string>> all =
      transport.AllGatherBytes(absl::StrCat(getpid(), " ", node));
  if (!all.ok()) return all.status();
  auto state = std::make_unique<State>();
  state->rank = transport.rank();
  state->on_death = std::move(on_death);
  for (int rank = 0; rank < transport.size(); ++rank) {
    const std::string& peer = (*all)[rank];
    const size_t space = peer.find(' ');
    const auto process = static_cast<pid_t>(std::atoll(peer.c_str()));
    if (rank == transport.rank() || process == getpid() || peer.substr(space + 1) != node ||
        Ended(process))
      continue;
    state->peers.push_back({rank, process});
  }
  auto watch = std::unique_ptr<PeerWatch>(new PeerWatch(std::move(state)));
  if (!watch->state_->peers.empty()) {
    watch->state_->thread = std::thread([state = watch->state_.get()] { state->Watch(); });
  }
  return watch;
}

}  // namespace longspan
