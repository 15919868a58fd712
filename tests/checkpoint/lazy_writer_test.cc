// Lazy saves: what comes back is the state at the snapshot, although every gate's memory changes
// the moment it may; failures leave the save before; nothing waits for ever.
#include "checkpoint/lazy_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "../faults/simulated_disk.h"
#include "checkpoint/storage.h"
#include "kernels/device/content_sum.h"
#include "parallel/transport/rank_threads.h"
#include "scratch_directory.h"
#include "sharded_state.h"

namespace longspan {
namespace {

constexpr int kGates = 3;

// Regions with gates, in the order of the state: about a third of them each.
std::vector<StateRegion> Gated(const ShardedState& state) {
  std::vector<StateRegion> regions = state.regions();
  for (size_t i = 0; i < regions.size(); ++i) {
    regions[i].gate = static_cast<int>(i * kGates / regions.size());
  }
  return regions;
}

// What an update does: gate by gate, as soon as it may, the memory becomes that of `step`.
void UpdateTo(int64_t step, const std::vector<StateRegion>& regions,
              const std::vector<Event>& gates, int rank, int ranks, int64_t scale) {
  const ShardedState next(rank, ranks, step, scale);
  for (int gate = 0; gate < kGates; ++gate) {
    if (gate < static_cast<int>(gates.size())) {
      EXPECT_TRUE(gates[gate].Wait().ok());
    }
    for (size_t i = 0; i < regions.size(); ++i) {
      const StateRegion& from = next.regions()[i];
      const auto bytes = (from.flat_end - from.flat_begin) * SizeOf(from.dtype);
      if (regions[i].gate == gate && bytes > 0) std::memcpy(regions[i].data, from.data, bytes);
    }
  }
}

SnapshotRequest RequestOf(int64_t step) {
  return {step, [step] { return StateMetadata(step); }, Event(), true};
}

CheckpointOptions OptionsOf(const std::string& directory, int keep_last = 100) {
  CheckpointOptions options;
  options.directory = directory;
  options.run_id = "lazy";
  options.keep_last = keep_last;
  return options;
}

RankThreadOptions Patience() {
  RankThreadOptions options;
  options.timeout = absl::Seconds(100);
  return options;
}

void ExpectWhole(FileSystem& files, const std::string& directory, int64_t step, int64_t scale) {
  const auto found = ListCheckpoints(files, directory);
  ASSERT_TRUE(found.ok()) << found.status();
  for (const CheckpointInfo& info : *found) {
    if (info.step != step) continue;
    EXPECT_TRUE(VerifyCheckpoint(files, info).ok());
    EXPECT_EQ(info.metadata, StateMetadata(step));
    ShardedState state(0, 1, step, scale);
    state.Clear();
    const absl::Status restored = RestoreRegions(files, info, state.regions());
    EXPECT_TRUE(restored.ok()) << restored;
    EXPECT_EQ(state.DifferenceFrom(step), "");
    return;
  }
  ADD_FAILURE() << "step " << step << " is not there";
}

struct Case {
  int ranks;
  int64_t scale;
  int64_t pool_bytes;
  int in_flight;
  int delay_us;  // of each copy, at random up to this
};

void SaveEveryStep(FileSystem& files, const std::string& directory, const Case& c, int steps) {
  const absl::Status run = RunRanks(
      c.ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        const int rank = transport.rank();
        const ShardedState state(rank, c.ranks, 0, c.scale);
        const std::vector<StateRegion> regions = Gated(state);
        LazyOptions lazy;
        lazy.pool_bytes = c.pool_bytes;
        lazy.in_flight = c.in_flight;
        std::mt19937 random(static_cast<unsigned>(rank));
        if (c.delay_us > 0) {
          lazy.copy = [&random, &c](void* to, const void* from, int64_t bytes) {
            std::this_thread::sleep_for(std::chrono::microseconds(random() % c.delay_us));
            std::memcpy(to, from, static_cast<size_t>(bytes));
          };
        }
        auto writer = LazyCheckpointWriter::Open(files, OptionsOf(directory), lazy, regions,
                                                 device.memory(), transport);
        if (!writer.ok()) return writer.status();
        std::vector<Event> gates;
        for (int64_t step = 1; step <= steps; ++step) {
          UpdateTo(step, regions, gates, rank, c.ranks, c.scale);
          gates = (*writer)->Snapshot(RequestOf(step));
        }
        UpdateTo(steps + 1, regions, gates, rank, c.ranks, c.scale);
        (*writer)->Drain();
        const std::vector<FinishedSave> finished = (*writer)->TakeFinished();
        EXPECT_EQ(static_cast<int>(finished.size()), steps);
        for (size_t i = 0; i < finished.size(); ++i) {
          EXPECT_TRUE(finished[i].status.ok()) << finished[i].status;
          EXPECT_EQ(finished[i].step, static_cast<int64_t>(i) + 1);
          EXPECT_TRUE(finished[i].report.warnings.empty());
          EXPECT_GT(finished[i].report.seconds, 0);
        }
        EXPECT_FALSE((*writer)->busy());
        return transport.Barrier();
      },
      Patience());
  ASSERT_TRUE(run.ok()) << run;
  for (int64_t step = 1; step <= steps; ++step) ExpectWhole(files, directory, step, c.scale);
}

TEST(LazyWriterTest, EveryStepIsWholeWhateverChangesMeanwhile) {
  for (const Case& c : {Case{1, 1, 0, 2, 0}, Case{3, 1, 0, 1, 2000}, Case{4, 1, 0, 3, 500}}) {
    SimulatedDisk disk;
    SaveEveryStep(disk, "/run/checkpoints", c, 8);
  }
}

TEST(LazyWriterTest, ManyPiecesThroughASmallPoolOnARealDisk) {
  for (const auto engine : {StorageOptions::Engine::kAuto, StorageOptions::Engine::kThreads}) {
    ScratchDirectory scratch;
    StorageOptions options;
    options.engine = engine;
    auto storage = OpenStorage(options);
    ASSERT_TRUE(storage.ok()) << storage.status();
    SaveEveryStep(**storage, scratch / "checkpoints", {2, 8000, int64_t{16} << 20, 2, 300}, 3);
  }
}

TEST(LazyWriterTest, AFullDiskFailsOneSaveOnAllRanksAndTheNextOneWorks) {
  SimulatedDisk disk;
  const absl::Status run = RunRanks(
      3,
      [&](Transport& transport, Device& device) -> absl::Status {
        const ShardedState state(transport.rank(), 3, 0);
        const std::vector<StateRegion> regions = Gated(state);
        auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints"), {}, regions,
                                                 device.memory(), transport);
        if (!writer.ok()) return writer.status();
        std::vector<Event> gates;
        for (int64_t step = 1; step <= 3; ++step) {
          UpdateTo(step, regions, gates, transport.rank(), 3, 1);
          if (absl::Status status = transport.Barrier(); !status.ok()) return status;
          if (transport.rank() == 0) {
            disk.set_hook(step != 2 ? SimulatedDisk::Hook()
                                    : [](const std::string& text) -> absl::Status {
              return text.find("reserve") == 0 && text.find("rank-00002") != std::string::npos
                         ? absl::ResourceExhaustedError(text)
                         : absl::OkStatus();
            });
          }
          if (absl::Status status = transport.Barrier(); !status.ok()) return status;
          gates = (*writer)->Snapshot(RequestOf(step));
          for (const Event& gate : gates) EXPECT_TRUE(gate.Wait().ok());
          (*writer)->Drain();
          const std::vector<FinishedSave> finished = (*writer)->TakeFinished();
          EXPECT_EQ(finished.size(), 1u);
          EXPECT_EQ(absl::IsResourceExhausted(finished[0].status), step == 2) << finished[0].status;
          if (step == 2) {
            EXPECT_NE(finished[0].status.message().find("rank 2"), absl::string_view::npos)
                << finished[0].status;
          }
        }
        return transport.Barrier();
      },
      Patience());
  ASSERT_TRUE(run.ok()) << run;
  ExpectWhole(disk, "/run/checkpoints", 1, 1);
  ExpectWhole(disk, "/run/checkpoints", 3, 1);
  EXPECT_FALSE(disk.Exists("/run/checkpoints/step-00000002.g0001"));
}

TEST(LazyWriterTest, ARankThatDoesNotAnswerFailsTheSaveAndItsLateVoteHarmsNone) {
  SimulatedDisk disk;
  const absl::Status run = RunRanks(
      2,
      [&](Transport& transport, Device& device) -> absl::Status {
        const int rank = transport.rank();
        const ShardedState state(rank, 2, 0);
        const std::vector<StateRegion> regions = Gated(state);
        std::atomic<int> slow_ms = 0;
        LazyOptions lazy;
        lazy.timeout = absl::Milliseconds(300);
        lazy.copy = [&slow_ms](void* to, const void* from, int64_t bytes) {
          std::this_thread::sleep_for(std::chrono::milliseconds(slow_ms.exchange(0)));
          std::memcpy(to, from, static_cast<size_t>(bytes));
        };
        auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints"), lazy, regions,
                                                 device.memory(), transport);
        if (!writer.ok()) return writer.status();
        if (rank == 1) slow_ms = 1000;  // stopped in the middle of the first save
        std::vector<Event> gates;
        std::vector<absl::Status> outcomes;
        for (int64_t step = 1; step <= 2; ++step) {
          UpdateTo(step, regions, gates, rank, 2, 1);
          gates = (*writer)->Snapshot(RequestOf(step));
          (*writer)->Drain();
          if (absl::Status status = transport.Barrier(); !status.ok()) return status;
          outcomes.push_back((*writer)->TakeFinished().at(0).status);
        }
        EXPECT_EQ(outcomes[0].code(), absl::StatusCode::kDeadlineExceeded) << outcomes[0];
        EXPECT_TRUE(outcomes[1].ok()) << outcomes[1];
        return transport.Barrier();
      },
      Patience());
  ASSERT_TRUE(run.ok()) << run;
  ExpectWhole(disk, "/run/checkpoints", 2, 1);
  EXPECT_EQ(ListCheckpoints(disk, "/run/checkpoints")->size(), 1u);
}

TEST(LazyWriterTest, AStateThatDidNotChangeAlthoughItShouldIsRefused) {
  SimulatedDisk disk;
  const absl::Status run = RunRanks(
      1,
      [&](Transport& transport, Device& device) -> absl::Status {
        const ShardedState state(0, 1, 1);
        auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints"), {},
                                                 Gated(state), device.memory(), transport);
        if (!writer.ok()) return writer.status();
        int64_t step = 0;
        for (const bool changed : {true, false, true}) {
          SnapshotRequest request = RequestOf(++step);
          request.changed = changed;
          (*writer)->Snapshot(std::move(request));
        }
        (*writer)->Drain();
        const std::vector<FinishedSave> finished = (*writer)->TakeFinished();
        EXPECT_TRUE(finished.at(0).status.ok());
        EXPECT_TRUE(finished.at(1).status.ok());
        EXPECT_TRUE(absl::IsDataLoss(finished.at(2).status)) << finished.at(2).status;
        return absl::OkStatus();
      },
      Patience());
  ASSERT_TRUE(run.ok()) << run;
  EXPECT_EQ(ListCheckpoints(disk, "/run/checkpoints")->size(), 2u);
}

// Gated regions, of which parameters and first moments have content sums.
std::vector<StateRegion> Summed(const ShardedState& state) {
  std::vector<StateRegion> regions = Gated(state);
  int64_t positions[2] = {100, 3000};
  for (StateRegion& region : regions) {
    if (region.group == "/parameters") region.content_sum = 0;
    if (region.group == "/optimizer/first_moment") region.content_sum = 1;
    if (region.content_sum < 0) continue;
    region.content_position = positions[region.content_sum];
    positions[region.content_sum] += region.flat_end - region.flat_begin;
  }
  return regions;
}

// What an update that wrote `regions` tells.
std::vector<uint64_t> SumsOf(const std::vector<StateRegion>& regions) {
  std::vector<uint64_t> sums(2);
  for (const StateRegion& region : regions) {
    if (region.content_sum < 0) continue;
    sums[region.content_sum] +=
        ContentSum(region.data, region.flat_end - region.flat_begin, region.content_position);
  }
  return sums;
}

TEST(LazyWriterTest, OnlyWhatTheUpdateWroteIsSaved) {
  enum Fault { kNone, kTorn, kStale, kMiscounted };
  const std::vector<Fault> faults = {kNone, kTorn, kNone, kStale, kMiscounted, kNone};
  for (const int ranks : {1, 3}) {
    const int64_t scale = ranks == 1 ? 6000 : 100;  // two pieces, or one
    SimulatedDisk disk;
    const absl::Status run = RunRanks(
        ranks,
        [&](Transport& transport, Device& device) -> absl::Status {
          const int rank = transport.rank();
          const bool guilty = rank == ranks - 1;  // what one rank finds fails the save on all
          const ShardedState state(rank, ranks, 0, scale);
          const std::vector<StateRegion> regions = Summed(state);
          auto* const last_moment = static_cast<uint32_t*>(
              std::find_if(regions.rbegin(), regions.rend(), [](const StateRegion& region) {
                return region.content_sum == 1 && region.flat_end > region.flat_begin;
              })->data);
          std::atomic<bool> tear = false;
          LazyOptions lazy;
          lazy.copy = [&](void* to, const void* from, int64_t bytes) {
            std::memcpy(to, from, static_cast<size_t>(bytes));
            // Behind the gate's back: what is not yet out changes.
            if (tear.exchange(false)) *last_moment ^= 1;
          };
          auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints"), lazy,
                                                   regions, device.memory(), transport);
          if (!writer.ok()) return writer.status();
          std::vector<Event> gates;
          for (size_t i = 0; i < faults.size(); ++i) {
            const int64_t step = static_cast<int64_t>(i) + 1;
            UpdateTo(step, regions, gates, rank, ranks, scale);
            SnapshotRequest request = RequestOf(step);
            request.content_sums = SumsOf(regions);
            if (faults[i] == kTorn && guilty) tear = true;
            if (faults[i] == kStale && guilty) {
              // The update went elsewhere.
              request.content_sums = SumsOf(Summed(ShardedState(rank, ranks, step + 100, scale)));
            }
            if (faults[i] == kMiscounted && guilty) request.content_sums.pop_back();
            gates = (*writer)->Snapshot(std::move(request));
            (*writer)->Drain();
          }
          const std::vector<FinishedSave> finished = (*writer)->TakeFinished();
          EXPECT_EQ(finished.size(), faults.size());
          for (size_t i = 0; i < finished.size(); ++i) {
            const absl::Status& status = finished[i].status;
            EXPECT_EQ(status.ok(), faults[i] == kNone) << i << ": " << status;
            const char* named = faults[i] == kTorn    ? "/optimizer/first_moment is not what"
                                : faults[i] == kStale ? "/parameters is not what"
                                                      : "";
            EXPECT_NE(status.message().find(named), absl::string_view::npos) << status;
          }
          return transport.Barrier();
        },
        Patience());
    ASSERT_TRUE(run.ok()) << run;
    const auto found = ListCheckpoints(disk, "/run/checkpoints");
    ASSERT_TRUE(found.ok()) << found.status();
    std::vector<int64_t> steps;
    for (const CheckpointInfo& info : *found) steps.push_back(info.step);
    EXPECT_EQ(steps, (std::vector<int64_t>{6, 3, 1}));
    for (const int64_t step : steps) ExpectWhole(disk, "/run/checkpoints", step, scale);
  }
}

TEST(LazyWriterTest, ContentSumsAreOfWords) {
  SimulatedDisk disk;
  const absl::Status run = RunRanks(
      1,
      [&](Transport& transport, Device& device) -> absl::Status {
        const ShardedState state(0, 1, 1);
        for (const char* group : {"/optimizer/compact", "/counts"}) {
          std::vector<StateRegion> regions = Gated(state);
          for (StateRegion& region : regions) {
            if (region.group == group) region.content_sum = 0;
          }
          const auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints"), {},
                                                         regions, device.memory(), transport);
          EXPECT_TRUE(absl::IsInvalidArgument(writer.status())) << writer.status();
        }
        return absl::OkStatus();
      },
      Patience());
  ASSERT_TRUE(run.ok()) << run;
}

// The removal of step 1, which step 2 replaces, held up by a slow disk and then failed.
class HeldRemoval {
 public:
  explicit HeldRemoval(SimulatedDisk& disk) {
    disk.set_hook([this](const std::string& text) -> absl::Status {
      if (text != "remove /run/checkpoints/step-00000001.g0001/COMMIT" || begun_.exchange(true)) {
        return absl::OkStatus();
      }
      for (int i = 0; i < 20000 && !released_; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      over_ = true;
      return absl::UnknownError(text + ": input/output error");
    });
  }
  void Release() { released_ = true; }
  bool begun() const { return begun_; }
  bool over() const { return over_; }

 private:
  std::atomic<bool> begun_ = false, released_ = false, over_ = false;
};

template <typename Condition>
bool Becomes(const Condition& condition) {
  for (int i = 0; i < 20000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return condition();
}

TEST(LazyWriterTest, SnapshotsGoOnDuringARemovalAndDrainAwaitsIt) {
  const auto path = [](int64_t step) {
    return "/run/checkpoints/step-0000000" + std::to_string(step) + ".g0001";
  };
  for (const int ranks : {1, 3}) {
    for (const int in_flight : {1, 2}) {
      SimulatedDisk disk;
      HeldRemoval removal(disk);
      const absl::Status run = RunRanks(
          ranks,
          [&](Transport& transport, Device& device) -> absl::Status {
            const int rank = transport.rank();
            const ShardedState state(rank, ranks, 0);
            const std::vector<StateRegion> regions = Gated(state);
            LazyOptions lazy;
            lazy.in_flight = in_flight;
            auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints", 1), lazy,
                                                     regions, device.memory(), transport);
            if (!writer.ok()) return writer.status();
            std::vector<Event> gates;
            int64_t step = 0;
            const auto save = [&] {
              UpdateTo(++step, regions, gates, rank, ranks, 1);
              gates = (*writer)->Snapshot(RequestOf(step));
            };
            save();
            (*writer)->Drain();
            EXPECT_EQ((*writer)->TakeFinished().size(), 1u);
            save();
            EXPECT_TRUE(Becomes([&] { return removal.begun(); }));
            // As many more as are let in while step 1 is still there; all of them get out of the
            // way of the next update.
            EXPECT_TRUE(Becomes([&] { return !(*writer)->busy(); }));
            for (int i = 0; i < in_flight; ++i) save();
            for (const Event& gate : gates) EXPECT_TRUE(gate.Wait().ok());
            EXPECT_TRUE((*writer)->busy());
            EXPECT_EQ((*writer)->TakeFinished().size(), 0u) << "its warnings are not known";
            // No more files than ever: the last one is begun once step 1 is done with.
            if (in_flight > 1) {
              EXPECT_TRUE(Becomes([&] { return disk.Exists(path(step - 1) + "/rank-00000.h5"); }));
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            EXPECT_FALSE(disk.Exists(path(step)));
            EXPECT_FALSE(removal.over());
            if (absl::Status status = transport.Barrier(); !status.ok()) return status;
            if (rank == 0) removal.Release();
            (*writer)->Drain();
            EXPECT_TRUE(removal.over());
            const std::vector<FinishedSave> finished = (*writer)->TakeFinished();
            EXPECT_EQ(static_cast<int>(finished.size()), in_flight + 1);
            for (size_t i = 0; i < finished.size(); ++i) {
              const FinishedSave& each = finished[i];
              EXPECT_TRUE(each.status.ok()) << each.status;
              EXPECT_EQ(each.report.warnings.size(), i == 0 ? 1u : 0u) << "step " << each.step;
              if (i > 0 || each.report.warnings.empty()) continue;
              EXPECT_NE(each.report.warnings[0].find("old checkpoint " + path(1)),
                        std::string::npos)
                  << each.report.warnings[0];
            }
            return transport.Barrier();
          },
          Patience());
      ASSERT_TRUE(run.ok()) << run;
      const int64_t newest = 2 + in_flight;
      ExpectWhole(disk, "/run/checkpoints", newest, 1);
      EXPECT_EQ(ListCheckpoints(disk, "/run/checkpoints")->size(), 1u);
      EXPECT_FALSE(disk.Exists(path(1))) << "the next removal takes it";
    }
  }
}

TEST(LazyWriterTest, AnOlderStepGoesOnlyAfterANewerOneCounts) {
  SimulatedDisk disk;
  const absl::Status run = RunRanks(
      2,
      [&](Transport& transport, Device& device) -> absl::Status {
        const ShardedState state(transport.rank(), 2, 0);
        const std::vector<StateRegion> regions = Gated(state);
        LazyOptions lazy;
        lazy.in_flight = 3;
        auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints", 1), lazy,
                                                 regions, device.memory(), transport);
        if (!writer.ok()) return writer.status();
        std::vector<Event> gates;
        for (int64_t step = 1; step <= 9; ++step) {
          UpdateTo(step, regions, gates, transport.rank(), 2, 1);
          gates = (*writer)->Snapshot(RequestOf(step));
        }
        (*writer)->Drain();
        return transport.Barrier();
      },
      Patience());
  ASSERT_TRUE(run.ok()) << run;
  int committed = 0, removed = 0;
  for (const std::string& text : disk.log()) {
    if (text.find("rename ") == 0 && text.find("/COMMIT") != std::string::npos) ++committed;
    if (text.find("remove ") != 0 || text.find("/COMMIT") == std::string::npos) continue;
    ++removed;
    EXPECT_EQ(text,
              "remove /run/checkpoints/step-0000000" + std::to_string(removed) + ".g0001/COMMIT");
    EXPECT_EQ(committed, removed + 1) << text << ": commits and removals take turns";
  }
  EXPECT_EQ(committed, 9);
  EXPECT_EQ(removed, 8);
}

TEST(LazyWriterTest, StopsInTheMiddleWithGatesOpen) {
  SimulatedDisk disk;
  const absl::Status run = RunRanks(
      2,
      [&](Transport& transport, Device& device) -> absl::Status {
        const ShardedState state(transport.rank(), 2, 1, 4000);
        LazyOptions lazy;
        lazy.in_flight = 3;
        lazy.copy = [](void* to, const void* from, int64_t bytes) {
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
          std::memcpy(to, from, static_cast<size_t>(bytes));
        };
        auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints"), lazy,
                                                 Gated(state), device.memory(), transport);
        if (!writer.ok()) return writer.status();
        std::vector<Event> gates;
        for (int64_t step = 1; step <= 3; ++step) {
          for (const Event& gate : (*writer)->Snapshot(RequestOf(step))) gates.push_back(gate);
        }
        EXPECT_TRUE((*writer)->busy());
        writer->reset();
        for (const Event& gate : gates) EXPECT_TRUE(gate.Done());
        return transport.Barrier();
      },
      Patience());
  ASSERT_TRUE(run.ok()) << run;
}

TEST(LazyWriterTest, TheCallingThreadIsHardlyHeldUp) {
  SimulatedDisk disk;
  std::vector<double> micros;
  const absl::Status run = RunRanks(
      1,
      [&](Transport& transport, Device& device) -> absl::Status {
        const ShardedState state(0, 1, 1);
        const std::vector<StateRegion> regions = Gated(state);
        auto writer = LazyCheckpointWriter::Open(disk, OptionsOf("/run/checkpoints", 1), {},
                                                 regions, device.memory(), transport);
        if (!writer.ok()) return writer.status();
        for (int64_t step = 1; step <= 101; ++step) {
          SnapshotRequest request = RequestOf(step);
          request.changed = false;
          const auto begin = std::chrono::steady_clock::now();
          (*writer)->Snapshot(std::move(request));
          micros.push_back(
              std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
                  .count());
          (*writer)->Drain();
        }
        return absl::OkStatus();
      },
      Patience());
  ASSERT_TRUE(run.ok()) << run;
  std::sort(micros.begin(), micros.end());
  std::printf("Snapshot: %.1f us at the median, %.1f us at most\n", micros[50], micros.back());
  EXPECT_LT(micros[50], 1000);
}

}  // namespace
}  // namespace longspan
