#include "checkpoint/lazy_writer.h"

#include <pthread.h>
#include <sched.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checksum.h"
#include "checkpoint/commit.h"
#include "checkpoint/host_pool.h"
#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/step_directory.h"
#include "checkpoint/step_protocol.h"
#include "checkpoint/vote.h"
#include "checkpoint/wake_timer.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kCopiesAtATime = 2;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Processor seconds of the calling thread.
double ThreadSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// `whole`: the pieces of a file.
int64_t PoolChunks(const LazyOptions& options, int64_t whole, int ranks_on_node) {
  constexpr int64_t kFewest = 2;  // one is filled while another is written
  if (options.pool_bytes > 0) {
    return std::clamp(options.pool_bytes / kPieceBytes, std::min(kFewest, whole), whole);
  }
  struct sysinfo machine {};
  sysinfo(&machine);
  const int64_t share = static_cast<int64_t>(machine.totalram) *
                        static_cast<int64_t>(machine.mem_unit) / 8 / ranks_on_node / kPieceBytes;
  return std::clamp(share, std::min(kFewest, whole), whole);
}

// A snapshot on its way.
struct Flight {
  SnapshotRequest request;
  int64_t number = 0;  // the first one is 1
  SavedStep step;
  std::vector<std::optional<EventPromise>> gates;  // of regions with bytes; none left: all opened

  struct Piece {
    int64_t number = 0;
    char* chunk = nullptr;
    Event copied;  // then it holds the piece
  };
  // From the copier to the writer, under the mutex.
  std::deque<Piece> filled;
  bool abandoned = false;  // by the writer: copying is of no use
  bool copied = false;     // nothing more will be filled

  RankFileSums sums;         // the copier's, or the writer's where the state is not in host memory
  absl::Status status;       // the writer's, then the committer's
  std::string contribution;  // this rank's part of the manifest
  Clock::time_point begin;
  FinishedSave finished;
  double copier_seconds = 0;  // of the processor
};

class LazyWriter : public LazyCheckpointWriter {
 public:
  LazyWriter(FileSystem& files, CheckpointOptions options, LazyOptions lazy,
             std::vector<StateRegion> regions, Transport& transport, int64_t generation,
             RankFileLayout layout, const std::vector<int64_t>& file_bytes,
             std::unique_ptr<HostPool> pool, std::unique_ptr<WakeTimer> copier_wake,
             const MakeProtocol& protocol)
      : files_(files),
        options_(std::move(options)),
        lazy_(std::move(lazy)),
        regions_(std::move(regions)),
        transport_(transport),
        generation_(generation),
        layout_(std::move(layout)),
        pool_(std::move(pool)),
        copier_wake_(std::move(copier_wake)),
        protocol_(protocol(file_bytes, stop_)) {
    for (size_t i = 0; i < regions_.size(); ++i) {
      const int gate = regions_[i].gate;
      if (gate >= static_cast<int>(last_piece_.size())) last_piece_.resize(gate + 1, -1);
      if (RegionBytes(regions_[i]) == 0) continue;
      last_piece_[gate] =
          std::max(last_piece_[gate], LastPiece(layout_, regions_, static_cast<int64_t>(i)));
    }
    if (lazy_.copies != nullptr) {
      lazy_.copy = [copies = lazy_.copies](void* to, const void* from, int64_t bytes) {
        copies->CopyBytes(from, to, bytes);
      };
    }
    files_.RegisterMemory(pool_->memory(), pool_->bytes());
    copier_ = std::thread([this] { ServeCopies(); });
    writer_ = std::thread([this] { Serve("ckpt-write", to_write_, &LazyWriter::Write); });
    committer_ = std::thread([this] { Serve("ckpt-commit", to_commit_, &LazyWriter::Commit); });
  }

  ~LazyWriter() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    copier_wake_->Set();
    for (Queue* queue : {&to_write_, &to_commit_}) queue->changed.notify_one();
    // In this order: what one has begun, the next one ends.
    copier_.join();
    writer_.join();
    committer_.join();
    files_.WithdrawMemory(pool_->memory());
  }

  int64_t generation() const override { return generation_; }
  int64_t file_bytes() const override { return layout_.bytes; }
  int64_t pool_bytes() const override { return pool_->bytes(); }

  bool busy() const override {
    const std::lock_guard lock(mutex_);
    return in_flight_ >= lazy_.in_flight;
  }

  std::vector<Event> Snapshot(SnapshotRequest request) override {
    auto flight = std::make_shared<Flight>();
    flight->begin = Clock::now();
    flight->step.name = {request.step, generation_};
    flight->step.directory = JoinPath(options_.directory, StepDirectoryName(flight->step.name));
    flight->step.changed = request.changed;
    flight->finished.step = request.step;
    flight->finished.report.bytes = layout_.bytes;
    flight->request = std::move(request);
    std::vector<Event> gates(last_piece_.size());
    flight->gates.resize(last_piece_.size());
    for (size_t gate = 0; gate < gates.size(); ++gate) {
      if (last_piece_[gate] < 0) continue;
      gates[gate] = flight->gates[gate].emplace().event();
    }
    {
      std::unique_lock lock(mutex_);
      ended_.wait(lock, [&] { return in_flight_ < lazy_.in_flight; });
      flight->number = ++attempts_;
      flight->step.tag =
          absl::StrCat("checkpoint ", protocol_->name(), " generation ", generation_, " step ",
                       flight->step.name.step, " attempt ", flight->number, ": ");
      ++in_flight_;
      flight->finished.report.backlog_bytes = backlog_pieces_ * kPieceBytes;
      backlog_pieces_ += PieceCount(layout_);
      to_copy_.push_back(std::move(flight));
    }
    copier_wake_->Set();
    return gates;
  }

  std::vector<FinishedSave> TakeFinished() override {
    const std::lock_guard lock(mutex_);
    return std::exchange(finished_, {});
  }

  void Drain() override {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return through_ == attempts_; });
  }

 private:
  using FlightPointer = std::shared_ptr<Flight>;
  // What writer or committer has to do. `changed`: there is more, or it is to stop; notified
  // without the mutex, so that nobody is preempted who holds it, and awaited by that thread alone.
  struct Queue {
    std::deque<FlightPointer> flights;
    std::condition_variable changed;
  };

  static void NameThread(const char* name) {
    pthread_setname_np(pthread_self(), name);
    // Waking these threads should not take the core from the one that wakes them. A hint; they work
    // without it.
    const sched_param none{};
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
  }

  // What each thread does: one flight after the other, until told to stop and none is left.
  void ServeCopies() {
    NameThread("ckpt-copy");
    while (true) {
      FlightPointer flight;
      {
        const std::lock_guard lock(mutex_);
        if (!to_copy_.empty()) {
          flight = std::move(to_copy_.front());
          to_copy_.pop_front();
        } else if (stop_) {
          return;
        }
      }
      if (flight == nullptr) {
        copier_wake_->Wait();
        continue;
      }
      Add(flight, to_write_);
      Copy(*flight);
    }
  }
  void Serve(const char* name, Queue& queue, void (LazyWriter::*serve)(Flight&)) {
    NameThread(name);
    while (true) {
      FlightPointer flight;
      {
        std::unique_lock lock(mutex_);
        // They outlive the flights that are still before them.
        queue.changed.wait(lock,
                           [&] { return !queue.flights.empty() || (stop_ && in_flight_ == 0); });
        if (queue.flights.empty()) return;
        flight = std::move(queue.flights.front());
        queue.flights.pop_front();
      }
      (this->*serve)(*flight);
      if (&queue == &to_write_) Add(std::move(flight), to_commit_);
    }
  }
  void Add(FlightPointer flight, Queue& queue) {
    {
      const std::lock_guard lock(mutex_);
      queue.flights.push_back(std::move(flight));
    }
    queue.changed.notify_one();
  }

  // ---- copier ----

  void Copy(Flight& flight) {
    const absl::Status complete = flight.request.complete.Wait();
    const auto begin = Clock::now();
    const double pool_before = pool_->waited_seconds();
    const double processor_before = ThreadSeconds();
    RankFileStream stream(layout_, regions_);
    flight.sums = stream.EmptySums(!flight.request.content_sums.empty());
    std::deque<Event> queued;  // copies under way
    for (int64_t piece = 0; piece < PieceCount(layout_) && complete.ok(); ++piece) {
      char* chunk = pool_->Take();
      // More at a time would only keep other copies from the bus.
      if (queued.size() == kCopiesAtATime) {
        (void)queued.front().Wait();
        queued.pop_front();
      }
      {
        const std::lock_guard lock(mutex_);
        if (flight.abandoned || stop_) {
          pool_->Give(chunk);
          break;
        }
      }
      Event copied;
      if (lazy_.copy) {
        stream.CopyPiece(piece, chunk, lazy_.copy);
        if (lazy_.copies != nullptr) queued.push_back(copied = lazy_.copies->Record());
      } else {
        stream.CopyAndSum(piece, chunk, flight.sums);
      }
      for (size_t gate = 0; gate < flight.gates.size(); ++gate) {
        if (last_piece_[gate] == piece) OpenGate(flight, gate, copied);
      }
      {
        const std::lock_guard lock(mutex_);
        flight.filled.push_back({piece, chunk, copied});
      }
      to_write_.changed.notify_one();
    }
    // What was given up stands in nobody's way, once it is not copied any more.
    const Event last = queued.empty() ? Event() : queued.back();
    for (size_t gate = 0; gate < flight.gates.size(); ++gate) OpenGate(flight, gate, last);
    (void)last.Wait();
    {
      SaveReport& report = flight.finished.report;
      const std::lock_guard lock(mutex_);
      report.copy_seconds = Seconds(Clock::now() - begin);
      report.pool_seconds = pool_->waited_seconds() - pool_before;
      flight.copier_seconds = ThreadSeconds() - processor_before;
      if (!complete.ok()) flight.status = complete;
      flight.copied = true;
    }
    to_write_.changed.notify_one();
  }

  static void OpenGate(Flight& flight, size_t gate, const Event& copied) {
    if (!flight.gates[gate].has_value()) return;
    flight.gates[gate]->CompleteWith(copied);
    flight.gates[gate].reset();
  }

  // ---- writer ----

  void Write(Flight& flight) {
    {
      // Space for keep_last + in_flight steps is enough: what an older one replaces goes first.
      std::unique_lock lock(mutex_);
      ended_.wait(lock, [&] { return flight.number - lazy_.in_flight <= through_; });
    }
    const double processor_before = ThreadSeconds();
    absl::Status status = BeginStep(flight);
    std::unique_ptr<File> file;
    if (status.ok()) {
      absl::StatusOr<std::unique_ptr<File>> created =
          CreateRankFile(files_, flight.step.directory, transport_.rank(), layout_.bytes);
      status = created.status();
      if (created.ok()) file = *std::move(created);
    }
    const auto begin = Clock::now();
    if (status.ok()) {
      status = WritePieces(flight, *file);
      file.reset();
      if (status.ok()) {
        absl::StatusOr<std::string> contribution =
            FinishRankFile(files_, flight.step.directory, transport_.rank(), layout_, regions_,
                           std::move(flight.sums));
        status = contribution.status();
        if (contribution.ok()) flight.contribution = *std::move(contribution);
      }
    }
    status = protocol_->EndFile(flight.step, status);
    EndCopy(flight, /*abandon=*/!status.ok());
    const std::lock_guard lock(mutex_);
    backlog_pieces_ -= PieceCount(layout_);
    if (flight.status.ok()) flight.status = status;
    if (flight.status.ok()) {
      flight.finished.report.checked_sums =
          static_cast<int64_t>(flight.request.content_sums.size());
    }
    flight.finished.report.write_seconds = Seconds(Clock::now() - begin);
    flight.finished.report.processor_seconds =
        flight.copier_seconds + ThreadSeconds() - processor_before;
  }

  absl::Status BeginStep(Flight& flight) {
    SavedStep& step = flight.step;
    step.metadata = flight.request.metadata ? flight.request.metadata() : "{}";
    absl::Status mine = CheckJsonObject(step.metadata, "the checkpoint's metadata");
    if (mine.ok() && step.name.step < 0) mine = absl::InvalidArgumentError("a negative step");
    const size_t sums = flight.request.content_sums.size();
    if (mine.ok() && sums != 0 && sums != static_cast<size_t>(ContentSumCount(regions_))) {
      mine = absl::InvalidArgumentError(absl::StrCat(sums, " content sums of the update, but ",
                                                     ContentSumCount(regions_), " of the regions"));
    }
    return protocol_->Begin(step, mine);
  }

  absl::Status WritePieces(Flight& flight, File& file) {
    RankFileStream stream(layout_, regions_);
    RankFileWriter writer(layout_, file, *pool_);
    absl::Status copy_failure;
    int64_t written = 0;
    while (written < PieceCount(layout_)) {
      Flight::Piece piece;
      {
        std::unique_lock lock(mutex_);
        to_write_.changed.wait(lock, [&] { return flight.copied || !flight.filled.empty(); });
        if (flight.filled.empty()) {
          copy_failure =
              flight.status.ok() ? absl::CancelledError("the copy was given up") : flight.status;
          break;
        }
        piece = flight.filled.front();
        flight.filled.pop_front();
      }
      copy_failure = piece.copied.Wait();
      if (copy_failure.ok()) {
        copy_failure = protocol_->Piece(flight.step, piece.number, piece.chunk,
                                        PieceBytes(layout_, piece.number), layout_.bytes);
      }
      if (lazy_.copy) stream.AddSums(piece.number, piece.chunk, flight.sums);
      writer.Write(piece.number, piece.chunk);
      ++written;
      if (!copy_failure.ok()) break;
    }
    const absl::Status ended = writer.Finish();
    if (!copy_failure.ok()) return copy_failure;
    if (!ended.ok()) return ended;
    return CheckContent(flight.sums, flight.request.content_sums);
  }

  // What came out is what the owner wrote.
  absl::Status CheckContent(const RankFileSums& sums, const std::vector<uint64_t>& wanted) const {
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (sums.content_sums[i] == wanted[i]) continue;
      const auto region = std::find_if(
          regions_.begin(), regions_.end(),
          [&](const StateRegion& each) { return each.content_sum == static_cast<int>(i); });
      return absl::DataLossError(
          absl::StrCat("what was copied of ", region == regions_.end() ? "nothing" : region->group,
                       " is not what the update wrote (content sum ", Hex64(sums.content_sums[i]),
                       ", written ", Hex64(wanted[i]),
                       "): the memory changed while it was copied, or the update wrote elsewhere"));
    }
    return absl::OkStatus();
  }

  // Waits until the copier is through with the flight; after a failure it stops early, and what it
  // has filled goes back.
  void EndCopy(Flight& flight, bool abandon) {
    std::unique_lock lock(mutex_);
    flight.abandoned = abandon;
    while (true) {
      to_write_.changed.wait(lock, [&] { return flight.copied || !flight.filled.empty(); });
      const std::deque<Flight::Piece> filled = std::exchange(flight.filled, {});
      if (filled.empty()) return;
      lock.unlock();
      for (const Flight::Piece& piece : filled) {
        (void)piece.copied.Wait();
        pool_->Give(piece.chunk);
      }
      lock.lock();
    }
  }

  // ---- committer ----

  void Commit(Flight& flight) {
    const double processor_before = ThreadSeconds();
    SaveReport& report = flight.finished.report;
    report.directory = flight.step.directory;
    const absl::StatusOr<std::string> outcome =
        protocol_->Commit(flight.step, flight.status, flight.contribution);
    report.seconds = Seconds(Clock::now() - flight.begin);
    {
      // The next snapshot need not wait for the removal of older steps.
      const std::lock_guard lock(mutex_);
      --in_flight_;
    }
    ended_.notify_all();
    to_write_.changed.notify_one();  // it may have waited for this one to end
    const absl::StatusOr<std::string> removed = protocol_->Finish(flight.step, outcome.status());
    if (outcome.ok()) {
      const std::string lines = absl::StrCat(*outcome, removed.ok() ? *removed : "");
      for (size_t begin = 0; begin < lines.size();) {
        const size_t end = lines.find('\n', begin);
        report.warnings.push_back(lines.substr(begin, end - begin));
        begin = end + 1;
      }
      if (!removed.ok()) {
        report.warnings.push_back(absl::StrCat("not known whether old checkpoints are removed: ",
                                               removed.status().message()));
        unanswered_.push_back(flight.step.tag);
      }
    } else {
      flight.finished.status =
          absl::Status(outcome.status().code(),
                       absl::StrCat(protocol_->name(), protocol_->name().empty() ? "" : " ",
                                    "checkpoint of step ", flight.step.name.step,
                                    " not saved: ", outcome.status().message()));
      unanswered_.push_back(flight.step.tag);
    }
    // Messages that nobody waited for may come late; a save that was answered has none.
    for (const std::string& tag : unanswered_) transport_.DropTagged(tag);
    {
      const std::lock_guard lock(mutex_);
      report.processor_seconds += ThreadSeconds() - processor_before;
      finished_.push_back(std::move(flight.finished));
      through_ = flight.number;
    }
    ended_.notify_all();
  }

  FileSystem& files_;
  const CheckpointOptions options_;
  LazyOptions lazy_;
  const std::vector<StateRegion> regions_;
  Transport& transport_;
  const int64_t generation_;
  const RankFileLayout layout_;
  const std::unique_ptr<HostPool> pool_;
  const std::unique_ptr<WakeTimer> copier_wake_;
  std::vector<int64_t> last_piece_;  // by gate: when this one is out, all of it is; -1: no bytes

  mutable std::mutex mutex_;
  std::condition_variable ended_;  // a flight: committed, or through
  std::deque<FlightPointer> to_copy_;
  Queue to_write_, to_commit_;
  std::vector<FinishedSave> finished_;
  int64_t attempts_ = 0;
  int64_t through_ = 0;  // the last one that is, its removals included
  int64_t backlog_pieces_ = 0;
  int in_flight_ = 0;               // not yet committed
  std::atomic<bool> stop_ = false;  // set under the mutex; votes look at it without
  const std::unique_ptr<StepProtocol> protocol_;

  std::vector<std::string> unanswered_;  // the committer's: tags of saves that failed

  std::thread copier_, writer_, committer_;
};

}  // namespace

int64_t LazyPoolBytes(const LazyOptions& options, int64_t state_bytes, int ranks_on_node) {
  const int64_t pieces = (state_bytes + kPieceBytes - 1) / kPieceBytes;
  return PoolChunks(options, std::max<int64_t>(pieces, 1), ranks_on_node) * kPieceBytes;
}

absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> OpenLazyWriter(
    FileSystem& files, CheckpointOptions options, LazyOptions lazy,
    std::vector<StateRegion> regions, MemoryTable& memory, Transport& transport, int64_t generation,
    const MakeProtocol& protocol) {
  RankFileLayout layout;
  std::unique_ptr<HostPool> pool;
  std::unique_ptr<WakeTimer> copier_wake;
  const auto prepare = [&]() -> absl::Status {
    if (lazy.in_flight < 1) return absl::InvalidArgumentError("in_flight is below 1");
    for (size_t i = 0; i < regions.size(); ++i) {
      if (regions[i].gate < (i == 0 ? 0 : regions[i - 1].gate)) {
        return absl::InvalidArgumentError(
            absl::StrCat("checkpoint region '", regions[i].tensor,
                         "': gates ascend from one region to the next"));
      }
    }
    absl::StatusOr<RankFileLayout> built = BuildRankFileLayout(
        {options.run_id, generation, transport.rank(), transport.size()}, regions);
    if (!built.ok()) return built.status();
    layout = *std::move(built);
    for (size_t i = 0; i < regions.size(); ++i) {
      if (regions[i].content_sum < 0 || layout.offsets[i] < 0) continue;
      if (SizeOf(regions[i].dtype) != 4 || layout.offsets[i] % 4 != 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("checkpoint region '", regions[i].tensor,
                         "': content sums are of words of 32 bits, before all regions of others"));
      }
    }
    absl::StatusOr<std::unique_ptr<HostPool>> made = HostPool::Create(
        memory, PoolChunks(lazy, PieceCount(layout), transport.ranks_on_node()), kPieceBytes);
    if (!made.ok()) return made.status();
    pool = *std::move(made);
    absl::StatusOr<std::unique_ptr<WakeTimer>> timer = WakeTimer::Create();
    if (!timer.ok()) return timer.status();
    copier_wake = *std::move(timer);
    return absl::OkStatus();
  };
  const absl::Status prepared = prepare();
  absl::StatusOr<std::vector<std::string>> votes =
      Vote(transport, absl::StrCat("layout of generation ", generation), prepared,
           absl::StrCat(layout.bytes));
  if (!votes.ok()) return votes.status();
  std::vector<int64_t> file_bytes;
  for (const std::string& bytes : *votes) file_bytes.push_back(std::stoll(bytes));
  return std::make_unique<LazyWriter>(
      files, std::move(options), std::move(lazy), std::move(regions), transport, generation,
      std::move(layout), file_bytes, std::move(pool), std::move(copier_wake), protocol);
}

absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> LazyCheckpointWriter::Open(
    FileSystem& files, CheckpointOptions options, LazyOptions lazy,
    std::vector<StateRegion> regions, MemoryTable& memory, Transport& transport) {
  absl::StatusOr<int64_t> generation = OpenGeneration(files, options, transport);
  if (!generation.ok()) return generation.status();
  const absl::Duration timeout = lazy.timeout;
  return OpenLazyWriter(files, options, std::move(lazy), std::move(regions), memory, transport,
                        *generation, [&](const auto& /*file_bytes*/, const auto& stop) {
                          return MakeSharedSteps(files, options, *generation, transport, timeout,
                                                 stop);
                        });
}

}  // namespace longspan
