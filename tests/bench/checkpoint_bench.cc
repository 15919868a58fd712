// checkpoint_bench: one workload of the checkpoint benchmark, driven line by line, so that a driver
// can interleave it with others (checkpoint.py).
//
// Reads commands from standard input and answers each with one line of JSON on standard output:
//
//   run MODE EVERY WARM COUNT SHARE: WARM + COUNT iterations of SHARE of the compute each; a save
//       before each EVERYth of them; the last COUNT are timed. MODE: none, lazy or synchronous
//   persist new|again: one lazy save while nothing else is done, until it is committed, and until
//       the one before is retired; to new files, or to those of a retired step
//   keep: the same, and another one to host memory, below --memory-tier
//   restore disk|memory: the newest lazy checkpoint back to memory, as a run that starts does it
//   copy: copy and checksums of a save, alone: processor seconds
//   write: the same bytes to a file a rank, synced: what the disk does
//   memory: resident bytes: now, at most, and before the writers were opened
//
// An iteration is forward and backward (matrix products, one thread a rank) and an update that
// changes all of the state. Ranks are threads of this program. End of input ends it.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/host_pool.h"
#include "checkpoint/lazy_writer.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/spare_files.h"
#include "checkpoint/storage.h"
#include "checkpoint/tiers.h"
#include "kernels/gemm.h"
#include "launch/command_line.h"
#include "parallel/transport/rank_threads.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTensors = 16;            // of the state; each has a gate
constexpr int64_t kProductSize = 1024;  // of the matrices
constexpr float kUpdate = 1.0f - 0x1p-20f;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double ThreadSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

struct Workload {
  int ranks = 2;
  std::string directory;
  std::string memory_tier = "/dev/shm";
  int64_t state_bytes = int64_t{1} << 30;  // a rank
  int64_t pool_bytes = 0;                  // a rank; 0: the library's choice
  double compute_seconds = 1;              // forward and backward
};

// One rank of the benchmark.
class BenchmarkRank {
 public:
  BenchmarkRank(const Workload& workload, FileSystem& files, Transport& transport, Device& device)
      : workload_(workload),
        files_(files),
        transport_(transport),
        device_(device),
        stream_(device.CreateStream("compute")) {}

  absl::Status SetUp() {
    const int64_t elements = workload_.state_bytes / kTensors / SizeOf(DType::kF32);
    absl::StatusOr<Buffer> state = Buffer::Allocate(
        device_.memory(), kTensors * elements * SizeOf(DType::kF32), "state", Placement::kDevice);
    if (!state.ok()) return state.status();
    state_ = *std::move(state);
    for (int64_t i = 0; i < kTensors * elements; ++i)
      values()[i] = 1.0f + 1e-7f * static_cast<float>(i % 1000003);
    for (int t = 0; t < kTensors; ++t) {
      regions_.push_back({"/state",
                          absl::StrCat("tensor", t),
                          DType::kF32,
                          {transport_.size() * elements},
                          transport_.rank() * elements,
                          (transport_.rank() + 1) * elements,
                          values() + t * elements,
                          /*gate=*/t});
    }
    absl::StatusOr<Buffer> matrices =
        Buffer::AllocateZeroed(device_.memory(), 3 * kProductSize * kProductSize * 4, "matrices");
    if (!matrices.ok()) return matrices.status();
    matrices_ = *std::move(matrices);
    if (absl::Status status = CountProducts(); !status.ok()) return status;
    resident_before_ = ResidentBytes();

    CheckpointOptions options;
    options.run_id = "benchmark";
    options.keep_last = 1;
    options.directory = workload_.directory + "/synchronous";
    absl::StatusOr<std::unique_ptr<CheckpointWriter>> synchronous =
        CheckpointWriter::Open(files_, options, transport_);
    if (!synchronous.ok()) return synchronous.status();
    synchronous_ = *std::move(synchronous);
    options.directory = LazyDirectory();
    LazyOptions lazy;
    lazy.pool_bytes = workload_.pool_bytes;
    absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> opened =
        LazyCheckpointWriter::Open(files_, options, lazy, regions_, device_.memory(), transport_);
    if (!opened.ok()) return opened.status();
    lazy_ = *std::move(opened);
    gates_.resize(kTensors);
    return absl::OkStatus();
  }

  // Executes commands that rank 0 reads, until there are no more.
  absl::Status Serve() {
    while (true) {
      std::string line;
      if (leader() && !std::getline(std::cin, line)) line = "end";
      absl::StatusOr<std::string> command = transport_.BroadcastBytes(line, /*root=*/0);
      if (!command.ok()) return command.status();
      if (*command == "end") return absl::OkStatus();
      if (absl::Status status = Execute(*command); !status.ok()) return status;
    }
  }

 private:
  struct Iterations {
    std::string mode;
    int64_t every = 0, warm = 0, count = 0;
    double share = 1;
  };

  std::string LazyDirectory() const { return workload_.directory + "/lazy"; }
  bool leader() const { return transport_.rank() == 0; }
  float* values() const { return static_cast<float*>(state_.data()); }

  absl::Status Execute(const std::string& line) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    Iterations run;
    if (name == "run" && (words >> run.mode >> run.every >> run.warm >> run.count >> run.share) &&
        run.every > 0 && run.warm >= 0 && run.count > 0 && run.share >= 0 &&
        (run.mode == "none" || run.mode == "lazy" || run.mode == "synchronous")) {
      return Iterate(run);
    }
    std::string place;
    if (name == "persist" && (words >> place) && (place == "new" || place == "again")) {
      return Persist(place == "new");
    }
    if (name == "keep") return Keep();
    if (name == "restore" && (words >> place) && (place == "disk" || place == "memory")) {
      return Restore(place == "memory");
    }
    if (name == "copy") return CopyAlone();
    if (name == "write") return WriteAlone();
    if (name == "memory") return Memory();
    return absl::InvalidArgumentError(absl::StrCat(
        "'", line,
        "' is not a command; there are: run none|lazy|synchronous EVERY WARM COUNT SHARE, ",
        "persist new|again, keep, restore disk|memory, copy, write, memory"));
  }

  void Compute(int64_t products) {
    const auto matrix = [&](int64_t index) {
      return matrices_.Tensor(DType::kF32, {kProductSize, kProductSize},
                              index * kProductSize * kProductSize * 4);
    };
    for (int64_t i = 0; i < products; ++i)
      Gemm(Transpose::kNo, Transpose::kNo, 1, matrix(0), matrix(1), 0, matrix(2), stream_);
  }

  // As many products as take the wanted time while all ranks compute; alike on all ranks.
  absl::Status CountProducts() {
    double fastest = 1e9;
    for (int i = 0; i < 20; ++i) {
      if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
      const Clock::time_point begin = Clock::now();
      Compute(1);
      if (absl::Status status = stream_.Synchronize(); !status.ok()) return status;
      fastest = std::min(fastest, SecondsSince(begin));
    }
    const auto count =
        std::max<int64_t>(1, static_cast<int64_t>(workload_.compute_seconds / fastest + 0.5));
    absl::StatusOr<std::string> agreed = transport_.BroadcastBytes(absl::StrCat(count), 0);
    if (!agreed.ok()) return agreed.status();
    products_ = std::stoll(*agreed);
    return absl::OkStatus();
  }

  // All of the state changes, each tensor once its gate is open. Seconds that gates took are added
  // to `blocked`.
  void Update(double& blocked) {
    for (int t = 0; t < kTensors; ++t) {
      const Clock::time_point begin = Clock::now();
      (void)gates_[t].Wait();  // gates never fail
      blocked += SecondsSince(begin);
      auto* data = static_cast<float*>(regions_[t].data);
      const int64_t elements = RegionElements(regions_[t]);
      for (int64_t i = 0; i < elements; ++i) data[i] *= kUpdate;
    }
    gates_.assign(kTensors, Event());
  }

  void TakeSnapshot() {
    SnapshotRequest request;
    request.step = ++step_;
    request.changed = changed_;
    changed_ = false;
    gates_ = lazy_->Snapshot(std::move(request));
  }

  // A save that fails is no measurement.
  absl::Status TakeFinished(std::vector<SaveReport>& reports) {
    for (FinishedSave& save : lazy_->TakeFinished()) {
      if (!save.status.ok()) return save.status;
      reports.push_back(std::move(save.report));
    }
    return absl::OkStatus();
  }

  absl::Status Iterate(const Iterations& run) {
    const auto products = static_cast<int64_t>(static_cast<double>(products_) * run.share + 0.5);
    std::vector<double> blocked,
        calls;  // by save: all of it, and of that the call of Snapshot or Save
    std::vector<SaveReport> reports;
    double waited = 0, update_seconds = 0;
    Clock::time_point begin;
    for (int64_t i = -run.warm; i < run.count; ++i) {
      if (i == -run.warm || i == 0) {
        if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
        begin = Clock::now();
        blocked.clear();
        calls.clear();
        update_seconds = 0;
      }
      const Clock::time_point call = Clock::now();
      const bool saves = run.mode != "none" && (i + run.warm) % run.every == 0;
      if (saves) {
        if (run.mode == "lazy") {
          TakeSnapshot();
        } else {
          absl::Status status = synchronous_->Save(++step_, regions_, "{}").status();
          if (!status.ok()) return status;
        }
        waited = SecondsSince(call);
        calls.push_back(waited);
      }
      Compute(products);
      if (absl::Status status = stream_.Synchronize(); !status.ok()) return status;
      const Clock::time_point update = Clock::now();
      Update(waited);
      changed_ = true;
      update_seconds += SecondsSince(update);
      if (saves) blocked.push_back(std::exchange(waited, 0));
    }
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const double seconds = SecondsSince(begin);
    lazy_->Drain();
    if (absl::Status status = TakeFinished(reports); !status.ok()) return status;
    double processor = 0, copied = 0;
    for (const SaveReport& report : reports) {
      processor += report.processor_seconds / static_cast<double>(reports.size());
      copied += report.copy_seconds / static_cast<double>(reports.size());
    }
    return Answer(
        absl::StrFormat("\"seconds\": %.6f, \"iteration_seconds\": %.6f, \"iterations\": %d",
                        seconds, seconds / static_cast<double>(run.count), run.count),
        {{"update_seconds", {update_seconds / static_cast<double>(run.count)}},
         {"blocked_seconds", blocked},
         {"call_seconds", calls},
         {"copy_seconds", {copied}},
         {"processor_seconds", {processor}}});
  }

  absl::Status Persist(bool new_files) {
    if (new_files && leader()) {
      absl::Status status = RemoveSpare(files_, LazyDirectory(), lazy_->generation());
      if (!status.ok()) return status;
    }
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const Clock::time_point begin = Clock::now();
    TakeSnapshot();
    lazy_->Drain();
    const double drained = SecondsSince(begin);
    double blocked = 0;
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    Update(blocked);  // so that the next save has something new
    changed_ = true;
    std::vector<SaveReport> reports;
    if (absl::Status status = TakeFinished(reports); !status.ok()) return status;
    directory_ = reports.back().directory;
    // Rank 0's: until the commit record was durable. What is removed after that is removed by fio
    // after its time, too.
    return Answer(absl::StrFormat("\"seconds\": %.6f, \"removed_seconds\": %.6f, \"directory\": "
                                  "\"%s\", \"bytes\": %d, \"storage\": \"%s\"",
                                  reports.back().seconds, drained, directory_,
                                  lazy_->file_bytes() * transport_.size(), files_.description()),
                  {{"write_seconds", {reports.back().write_seconds}}});
  }

  // A save to the disk and one to memory, of which the writers of this process know.
  absl::Status Keep() {
    absl::StatusOr<std::vector<int>> nodes = NodesByHost(transport_);
    if (!nodes.ok()) return nodes.status();
    absl::StatusOr<std::vector<TierDirectory>> claimed =
        ClaimTiers(files_, LazyDirectory(), {{"memory", workload_.memory_tier}}, transport_);
    if (!claimed.ok()) return claimed.status();
    CheckpointOptions options;
    options.run_id = "benchmark";
    TierOptions tier;
    tier.tier = claimed->front();
    tier.nodes = *nodes;
    LazyOptions lazy;
    lazy.pool_bytes = 4 * kPieceBytes;
    absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> writer = OpenTier(
        files_, options, lazy_->generation(), tier, lazy, regions_, device_.memory(), transport_);
    if (!writer.ok()) return writer.status();
    SnapshotRequest request;
    request.step = step_ + 1;
    (*writer)->Snapshot(std::move(request));
    (*writer)->Drain();
    for (const FinishedSave& save : (*writer)->TakeFinished()) {
      if (!save.status.ok()) return save.status;
    }
    return Persist(/*new_files=*/true);
  }

  absl::Status Restore(bool memory) {
    std::memset(state_.data(), 0, static_cast<size_t>(state_.bytes()));
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const Clock::time_point begin = Clock::now();
    const double processor = ThreadSeconds();
    absl::StatusOr<int64_t> bytes = Load(memory);
    if (!bytes.ok()) return bytes.status();
    const double used = ThreadSeconds() - processor;
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const double seconds = SecondsSince(begin);
    changed_ = true;
    if (values()[0] == 0 || values()[state_.bytes() / 4 - 1] == 0)
      return absl::InternalError("restore left the state as it was");
    return Answer(absl::StrFormat("\"seconds\": %.6f, \"bytes\": %d", seconds, *bytes),
                  {{"processor_seconds", {used}}});
  }

  // Of the newest checkpoint, found and read in the way of a run that starts.
  absl::StatusOr<int64_t> Load(bool memory) {
    absl::StatusOr<std::vector<int>> nodes = NodesByHost(transport_);
    if (!nodes.ok()) return nodes.status();
    std::vector<TierDirectory> tiers;
    if (memory) {
      absl::StatusOr<std::vector<TierDirectory>> known = ReadTiers(files_, LazyDirectory());
      if (!known.ok()) return known.status();
      tiers = *std::move(known);
    }
    absl::StatusOr<std::vector<FoundCheckpoint>> found =
        FindCheckpoints(files_, LazyDirectory(), tiers, *nodes, transport_);
    if (!found.ok()) return found.status();
    if (found->empty() || found->front().copies.empty() == memory) {
      return absl::NotFoundError("the newest checkpoint is not where it is to be read from");
    }
    absl::StatusOr<std::unique_ptr<TieredRestore>> restore =
        TieredRestore::Open(files_, found->front(), *nodes, transport_);
    if (!restore.ok()) return restore.status();
    std::vector<std::string> notes;
    absl::Status status = (*restore)->Restore(regions_, &notes);
    if (status.ok() && !notes.empty()) status = absl::InternalError(notes.front());
    if (!status.ok()) return status;
    return (*restore)->info().bytes;
  }

  // What a save costs the processor at least: every byte copied, and both its checksums.
  absl::Status CopyAlone() {
    absl::StatusOr<RankFileLayout> layout =
        BuildRankFileLayout({"benchmark", 1, transport_.rank(), transport_.size()}, regions_);
    if (!layout.ok()) return layout.status();
    absl::StatusOr<std::unique_ptr<HostPool>> pool =
        HostPool::Create(device_.memory(), 4, kPieceBytes);
    if (!pool.ok()) return pool.status();
    std::vector<char*> chunks;
    for (int i = 0; i < 4; ++i) chunks.push_back((*pool)->Take());
    for (char* chunk : chunks) std::memset(chunk, 0, kPieceBytes);
    RankFileStream stream(*layout, regions_);
    RankFileSums sums = stream.EmptySums(/*content_sums=*/true);
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const double before = ThreadSeconds();
    for (int64_t piece = 0; piece < PieceCount(*layout); ++piece) {
      stream.CopyAndSum(piece, chunks[piece % 4], sums);
    }
    const double seconds = ThreadSeconds() - before;
    for (char* chunk : chunks) (*pool)->Give(chunk);
    return Answer(absl::StrFormat("\"bytes\": %d", layout->bytes),
                  {{"processor_seconds", {seconds}}});
  }

  // Sequential writes of the size that saves have, as many under way as the storage allows.
  absl::Status WriteAlone() {
    const std::string path =
        absl::StrFormat("%s/write-%05d", workload_.directory, transport_.rank());
    absl::StatusOr<std::unique_ptr<HostPool>> pool =
        HostPool::Create(device_.memory(), 4, kPieceBytes);
    if (!pool.ok()) return pool.status();
    absl::StatusOr<std::unique_ptr<File>> file = files_.Create(path);
    if (!file.ok()) return file.status();
    if (absl::Status status = (*file)->Reserve(workload_.state_bytes); !status.ok()) return status;
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const Clock::time_point begin = Clock::now();
    absl::Status outcome;
    std::mutex mutex;
    const int64_t pieces = std::max<int64_t>(1, workload_.state_bytes / kPieceBytes);
    for (int64_t piece = 0; piece < pieces; ++piece) {
      char* chunk = (*pool)->Take();
      (*file)->StartWrite(piece * kPieceBytes, chunk, kPieceBytes, [&, chunk](absl::Status status) {
        {
          const std::lock_guard lock(mutex);
          outcome.Update(status);
        }
        (*pool)->Give(chunk);
      });
    }
    std::vector<char*> all;
    for (int i = 0; i < 4; ++i) all.push_back((*pool)->Take());  // so: every write has ended
    for (char* chunk : all) (*pool)->Give(chunk);
    if (outcome.ok()) outcome = (*file)->Sync();
    if (!outcome.ok()) return outcome;
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const double seconds = SecondsSince(begin);
    file->reset();
    if (absl::Status status = files_.Remove(path); !status.ok()) return status;
    return Answer(absl::StrFormat("\"seconds\": %.6f, \"bytes\": %d", seconds,
                                  pieces * kPieceBytes * transport_.size()),
                  {});
  }

  absl::Status Memory() {
    return Answer(
        absl::StrFormat("\"resident_bytes\": %d, \"peak_bytes\": %d, \"before_bytes\": %d, "
                        "\"pool_bytes\": %d, \"product_count\": %d",
                        ResidentBytes(), PeakResidentBytes(), resident_before_,
                        lazy_->pool_bytes() * transport_.size(), products_),
        {});
  }

  // Prints rank 0's `fields`, and of every one of `lists` all ranks' numbers.
  absl::Status Answer(const std::string& fields,
                      const std::vector<std::pair<std::string, std::vector<double>>>& lists) {
    std::string text = fields;
    for (const auto& [name, numbers] : lists) {
      std::vector<std::string> mine;
      for (const double number : numbers) mine.push_back(absl::StrFormat("%.9f", number));
      absl::StatusOr<std::vector<std::string>> all =
          transport_.AllGatherBytes(absl::StrJoin(mine, ", "));
      if (!all.ok()) return all.status();
      all->erase(std::remove(all->begin(), all->end(), ""), all->end());
      absl::StrAppend(&text, ", \"", name, "\": [", absl::StrJoin(*all, ", "), "]");
    }
    if (leader()) {
      std::printf("{%s}\n", text.c_str());
      std::fflush(stdout);
    }
    return transport_.Barrier();
  }

  const Workload& workload_;
  FileSystem& files_;
  Transport& transport_;
  Device& device_;
  Buffer state_, matrices_;
  std::vector<StateRegion> regions_;
  std::unique_ptr<CheckpointWriter> synchronous_;
  std::unique_ptr<LazyCheckpointWriter> lazy_;
  std::vector<Event> gates_;
  std::string directory_;  // of the save that `persist` made
  int64_t products_ = 0, step_ = 0, resident_before_ = 0;
  bool changed_ = true;  // since the lazy save before
  Stream stream_;        // last: its queued work may use all of the above
};

int Main(int argc, char** argv) {
  Workload workload;
  double state_mib = 1024, pool_mib = 0;
  CommandLine app("One workload of the checkpoint benchmark; commands come from standard input.",
                  "checkpoint_bench");
  app.AddOption("--ranks", workload.ranks, "Ranks, as threads of this program").Positive();
  app.AddOption("--directory", workload.directory, "Where checkpoints go; exists").Required();
  app.AddOption("--memory-tier", workload.memory_tier, "Host memory that outlives the process");
  app.AddOption("--state-mib", state_mib, "State of a rank").Positive();
  app.AddOption("--pool-mib", pool_mib,
                "Host memory of a rank's saves; by default the library's choice");
  app.AddOption("--compute", workload.compute_seconds, "Seconds of forward and backward")
      .NonNegative();
  if (const std::optional<int> ended = app.Parse(argc, argv)) return *ended;
  workload.state_bytes = static_cast<int64_t>(state_mib * (1 << 20));
  workload.pool_bytes = static_cast<int64_t>(pool_mib * (1 << 20));

  const absl::Status status =
      RunRanks(workload.ranks, [&](Transport& transport, Device& device) -> absl::Status {
        // One each, as under MPI.
        absl::StatusOr<std::unique_ptr<FileSystem>> storage = OpenStorage();
        if (!storage.ok()) return storage.status();
        BenchmarkRank rank(workload, **storage, transport, device);
        absl::Status result = rank.SetUp();
        return result.ok() ? rank.Serve() : result;
      });
  if (status.ok()) return 0;
  std::fprintf(stderr, "checkpoint_bench: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::Main(argc, argv); }
