#include "parallel/transport/rank_threads.h"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"

namespace longspan {
namespace {

constexpr std::chrono::seconds kGrace(10);

// What a failure elsewhere causes: such a status is reported only if there is no other.
bool IsEcho(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status);
}

// How far the ranks have come. Guarded by `mutex`.
struct Progress {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> ended;
  int running = 0;
  absl::Status cause;  // the first that is no echo, or else the first
};

void End(Progress& progress, int rank, const absl::Status& status) {
  std::lock_guard lock(progress.mutex);
  progress.ended[rank] = true;
  --progress.running;
  if (!status.ok() && (progress.cause.ok() || (IsEcho(progress.cause) && !IsEcho(status)))) {
    progress.cause = absl::Status(status.code(),
                                  absl::StrCat("rank ", rank, ": ", std::string(status.message())));
  }
  progress.changed.notify_all();
}

std::string Report(const InProcessNetwork& network, const Progress& progress) {
  std::string text;
  for (size_t rank = 0; rank < progress.ended.size(); ++rank) {
    absl::StrAppend(&text, rank == 0 ? "" : "\n", "  rank ", rank, ": ",
                    progress.ended[rank] ? "has ended" : network.Describe(static_cast<int>(rank)));
  }
  return text;
}

}  // namespace

absl::Status RunRanks(int ranks, const std::function<absl::Status(Transport&, Device&)>& body,
                      const RankThreadOptions& options) {
  // In this order, so that the network, whose threads may still drop the last reference to a
  // buffer, ends before them.
  std::vector<std::unique_ptr<Device>> devices;
  for (int rank = 0; rank < ranks; ++rank) {
    if (!options.open_device) {
      devices.push_back(Device::OpenCpu(options.threads_per_rank));
      continue;
    }
    absl::StatusOr<std::unique_ptr<Device>> device = options.open_device(rank);
    if (!device.ok()) return device.status();
    devices.push_back(*std::move(device));
  }
  auto network = std::make_unique<InProcessNetwork>(ranks, options.network);
  Progress progress;
  progress.ended.resize(ranks);
  progress.running = ranks;

  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      pthread_setname_np(pthread_self(), absl::StrCat("rank-", rank).c_str());
      std::unique_ptr<Transport> transport = network->Connect(rank);
      const absl::Status status = body(*transport, *devices[rank]);
      // Recorded before others hear of it: the first cause is the first.
      End(progress, rank, status);
      if (!status.ok())
        transport->Abort(absl::StrCat("rank ", rank, " failed: ", std::string(status.message())));
    });
  }

  std::string report;
  {
    std::unique_lock lock(progress.mutex);
    auto all_ended = [&] { return progress.running == 0; };
    if (options.timeout == absl::InfiniteDuration()) {
      progress.changed.wait(lock, all_ended);
    } else if (!progress.changed.wait_for(lock, absl::ToChronoNanoseconds(options.timeout),
                                          all_ended)) {
      report = absl::StrCat("the ranks did not end within ", absl::FormatDuration(options.timeout),
                            ":\n", Report(*network, progress));
      lock.unlock();
      network->Abort("time-out");
      lock.lock();
      if (!progress.changed.wait_for(lock, kGrace, all_ended)) {
        absl::StrAppend(&report, "\nand after the abort:\n", Report(*network, progress));
        LONGSPAN_CHECK(false, report.c_str());
      }
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (!report.empty()) return absl::DeadlineExceededError(report);
  return progress.cause;
}

}  // namespace longspan
