// Every operation of a save fails in turn, once or for good: the save fails on all ranks or, after
// the commit, warns; what loads is the previous checkpoint or the new one, whole; and a later save
// on a healthy disk succeeds.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <tuple>

#include "checkpoint_scenario.h"
#include "parallel/transport/rank_threads.h"

namespace longspan {
namespace {

enum class Fault { kDiskFullOnce, kIoErrorOnce, kDiskFullFromThenOn, kIoErrorFromThenOn };

bool TakesSpace(const std::string& text) {
  for (const char* operation : {"create ", "mkdir ", "write ", "reserve "}) {
    if (text.rfind(operation, 0) == 0) return true;
  }
  return false;
}

// Saves step 2 over a committed step 1 with the `nth` operation (from 0) failing, then step 3 on a
// healthy disk. Returns false if the save has no such operation.
bool SaveWithFault(const SimulatedDisk& base, Fault fault, SaveMode mode, int ranks, int64_t nth,
                   int& failed_saves, int& warned_saves) {
  const bool full = fault == Fault::kDiskFullOnce || fault == Fault::kDiskFullFromThenOn;
  const bool once = fault == Fault::kDiskFullOnce || fault == Fault::kIoErrorOnce;
  const std::unique_ptr<SimulatedDisk> disk = base.Clone();
  std::atomic<int64_t> calls{0};
  std::atomic<bool> hit{false};
  std::string victim;
  const SimulatedDisk::Hook hook = [&](const std::string& text) -> absl::Status {
    if (full && !TakesSpace(text)) return absl::OkStatus();
    const int64_t call = calls++;
    if (call < nth || (once && call > nth)) return absl::OkStatus();
    if (call == nth) victim = text;
    hit = true;
    return full ? absl::ResourceExhaustedError(text + ": no space left on device")
                : absl::UnknownError(text + ": input/output error");
  };
  std::string problem;
  int64_t newest_after_fault = -1;
  const auto outcomes = RunAttempt(
      *disk, ranks, 1, {2, 3},
      [&](size_t save) { disk->set_hook(save == 0 ? hook : SimulatedDisk::Hook()); },
      [&](size_t save) {
        disk->set_hook(nullptr);
        if (save == 0) {
          newest_after_fault = LoadNewest(*disk, problem);
          EXPECT_EQ(problem, "") << victim;
          // What a failed sync has lost, a later one that succeeds does not bring back.
          const std::vector<std::string> log = disk->log();
          if (once && victim.rfind("sync ", 0) == 0) {
            EXPECT_EQ(std::count(log.begin(), log.end(), victim), 0) << victim << " again";
          }
        }
      },
      mode);
  if (!hit) return false;
  const SaveOutcome& faulty = outcomes[0];
  for (const absl::Status& status : faulty.status) {
    EXPECT_EQ(status, faulty.status[0]) << victim << ": ranks see the same outcome";
  }
  for (const auto& warnings : faulty.warnings) EXPECT_EQ(warnings, faulty.warnings[0]) << victim;
  if (faulty.status[0].ok()) {
    ++warned_saves;
    EXPECT_EQ(newest_after_fault, 2) << victim;
    EXPECT_FALSE(faulty.warnings[0].empty()) << victim << ": an error that nobody hears of";
  } else {
    ++failed_saves;
    if (once) {
      EXPECT_EQ(newest_after_fault, 1) << victim;
      EXPECT_NE(faulty.status[0].message().find(victim), absl::string_view::npos)
          << faulty.status[0] << " does not name " << victim;
    } else {
      // If even the clean-up fails, a commit whose last sync failed may stand: whole, as LoadNewest
      // has found.
      EXPECT_TRUE(newest_after_fault == 1 || newest_after_fault == 2) << victim;
    }
    EXPECT_EQ(absl::IsResourceExhausted(faulty.status[0]), full) << faulty.status[0];
  }
  for (const absl::Status& status : outcomes[1].status) {
    EXPECT_TRUE(status.ok()) << "after a fault at " << victim << ": " << status;
  }
  EXPECT_EQ(LoadNewest(*disk, problem), 3) << victim;
  EXPECT_EQ(problem, "") << victim;
  // keep_last is 1: nothing of older or failed saves is left behind.
  size_t steps = 0;
  const std::vector<std::string> names = *disk->List(kCheckpoints);
  for (const std::string& name : names) steps += name.rfind("step-", 0) == 0;
  EXPECT_EQ(steps, 1u) << victim;
  return true;
}

class InjectedErrorsTest : public testing::TestWithParam<std::tuple<Fault, SaveMode>> {};

TEST_P(InjectedErrorsTest, AtEveryOperation) {
  const auto [fault, mode] = GetParam();
  for (int ranks : {1, 3}) {
    SimulatedDisk base;
    RunAttempt(base, ranks, 1, {1});
    int failed = 0, warned = 0;
    int64_t nth = 0;
    while (SaveWithFault(base, fault, mode, ranks, nth, failed, warned)) ++nth;
    EXPECT_GE(failed, 5) << "operations before the commit";
    EXPECT_GE(warned, 2) << "operations after it";
    EXPECT_GE(nth, 7);
  }
}

INSTANTIATE_TEST_SUITE_P(Faults, InjectedErrorsTest,
                         testing::Combine(testing::Values(Fault::kDiskFullOnce, Fault::kIoErrorOnce,
                                                          Fault::kDiskFullFromThenOn,
                                                          Fault::kIoErrorFromThenOn),
                                          testing::Values(SaveMode::kSynchronous, SaveMode::kLazy)),
                         [](const auto& param) {
                           const std::string of =
                               std::get<1>(param.param) == SaveMode::kLazy ? "Lazy" : "";
                           switch (std::get<0>(param.param)) {
                             case Fault::kDiskFullOnce:
                               return of + "DiskFullOnce";
                             case Fault::kIoErrorOnce:
                               return of + "IoErrorOnce";
                             case Fault::kDiskFullFromThenOn:
                               return of + "DiskFullFromThenOn";
                             case Fault::kIoErrorFromThenOn:
                               return of + "IoErrorFromThenOn";
                           }
                           return of;
                         });

TEST(InjectedOpenErrorsTest, AFailedStartFailsOnEveryRank) {
  for (int64_t nth = 0;; ++nth) {
    SimulatedDisk disk;
    std::atomic<int64_t> calls{0};
    std::atomic<bool> hit{false};
    disk.set_hook([&](const std::string& text) -> absl::Status {
      if (calls++ != nth) return absl::OkStatus();
      hit = true;
      return absl::UnknownError(text + ": input/output error");
    });
    CheckpointOptions options;
    options.directory = kCheckpoints;
    std::atomic<int> failures{0};
    const absl::Status run = RunRanks(2, [&](Transport& transport, Device&) -> absl::Status {
      failures += !CheckpointWriter::Open(disk, options, transport).ok();
      return absl::OkStatus();
    });
    EXPECT_TRUE(run.ok()) << run;
    if (!hit) {
      EXPECT_GE(nth, 6);
      break;
    }
    EXPECT_EQ(failures, 2) << nth;
  }
}

// A read that fails while the newest checkpoint is looked for must not make an older one the
// newest.
TEST(InjectedReadErrorsTest, AnUnreadableCheckpointIsNotAMissingOne) {
  SimulatedDisk disk;
  RunAttempt(disk, 2, 2, {1, 2});
  int64_t nth = 0;
  for (bool hit = true; hit; ++nth) {
    int64_t calls = 0;
    hit = false;
    disk.set_hook([&](const std::string& text) -> absl::Status {
      if (calls++ != nth) return absl::OkStatus();
      hit = true;
      return absl::UnknownError(text + ": input/output error");
    });
    const auto found = ListCheckpoints(disk, kCheckpoints);
    disk.set_hook(nullptr);
    EXPECT_EQ(found.ok(), !hit) << nth;
    if (found.ok()) {
      EXPECT_EQ(found->size(), 2u);
    }
  }
  EXPECT_GE(nth, 10);
}

}  // namespace
}  // namespace longspan
