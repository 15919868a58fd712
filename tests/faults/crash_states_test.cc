// Power cuts at every operation of a run's saves, restarts and deletions: whatever the disk kept,
// the loader finds a committed checkpoint, whole: the last one whose commit was durable, or the one
// that was being committed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "checkpoint_scenario.h"

namespace longspan {
namespace {

// The operations between which a step turns from absent to durably committed.
struct CommitWindow {
  size_t renamed = 0, synced = 0;  // indices into the log
  int64_t step = 0;
};

std::vector<CommitWindow> CommitWindows(const std::vector<DiskOperation>& log) {
  std::vector<CommitWindow> windows;
  for (size_t i = 0; i < log.size(); ++i) {
    if (log[i].kind != DiskOperation::kRename || log[i].to != "COMMIT") continue;
    CommitWindow window;
    window.renamed = i;
    for (window.synced = i + 1; window.synced < log.size(); ++window.synced) {
      const DiskOperation& operation = log[window.synced];
      if (operation.kind == DiskOperation::kSyncDirectory && operation.node == log[i].node) break;
    }
    const size_t at = log[i].text.find("step-") + 5;
    window.step = std::stoll(log[i].text.substr(at, 8));
    windows.push_back(window);
  }
  return windows;
}

// Three attempts, of 2, 2 and 3 ranks, each checkpoint replacing the one before (keep_last 1); the
// second fails half-way. `most` states at every cut; after every `resume_every`-th state the run is
// resumed on one rank and saves again.
void CutPowerEverywhere(SaveMode mode, int64_t most, int64_t resume_every) {
  SimulatedDisk original;
  for (const SaveOutcome& outcome : RunAttempt(original, 2, 1, {10, 20}, nullptr, nullptr, mode)) {
    ASSERT_TRUE(outcome.status[0].ok()) << outcome.status[0];
  }
  // A save that fails and cannot even clean up; the next attempt will have to.
  const auto broken = [](const std::string& text) {
    const bool fails =
        text.find("manifest.json") != std::string::npos || text.rfind("remove ", 0) == 0;
    return fails ? absl::UnknownError(text + ": input/output error") : absl::OkStatus();
  };
  for (const SaveOutcome& outcome : RunAttempt(
           original, 2, 1, {25}, [&](size_t) { original.set_hook(broken); },
           [&](size_t) { original.set_hook(nullptr); }, mode)) {
    ASSERT_FALSE(outcome.status[0].ok());
  }
  ASSERT_TRUE(original.Exists(std::string(kCheckpoints) + "/step-00000025.g0002/rank-00000.h5"));
  for (const SaveOutcome& outcome : RunAttempt(original, 3, 1, {30}, nullptr, nullptr, mode)) {
    ASSERT_TRUE(outcome.status[0].ok()) << outcome.status[0];
  }
  ASSERT_FALSE(original.Exists(std::string(kCheckpoints) + "/step-00000025.g0002"));
  const std::vector<DiskOperation> log = original.operations();
  const std::vector<CommitWindow> windows = CommitWindows(log);
  ASSERT_EQ(windows.size(), 3u);

  int64_t states = 0, visits = 0;
  std::set<std::pair<size_t, int64_t>> seen_in_window;  // (window, step that loaded)
  for (size_t cut = 0; cut <= log.size(); ++cut) {
    int64_t durable = -1, possible = -1;
    size_t window_of_cut = windows.size();
    for (size_t w = 0; w < windows.size(); ++w) {
      if (windows[w].synced < cut) durable = windows[w].step;
      if (windows[w].renamed < cut) possible = windows[w].step;
      if (windows[w].renamed < cut && windows[w].synced >= cut) window_of_cut = w;
    }
    states += SimulatedDisk::VisitCrashStates(log, cut, most, 1, [&](SimulatedDisk& disk) {
      std::string problem;
      const int64_t loaded = LoadNewest(disk, problem);
      ASSERT_EQ(problem, "") << "power cut before operation " << cut;
      ASSERT_TRUE(loaded == durable || loaded == possible)
          << "power cut before operation " << cut << ": step " << loaded << " loads, " << durable
          << " was durable";
      if (window_of_cut < windows.size()) seen_in_window.insert({window_of_cut, loaded});
      if (++visits % resume_every == 0 && disk.Exists("/run")) {
        for (const SaveOutcome& outcome : RunAttempt(disk, 1, 1, {40}, nullptr, nullptr, mode)) {
          ASSERT_TRUE(outcome.status[0].ok())
              << "resumed after a power cut before operation " << cut << ": " << outcome.status[0];
          ASSERT_TRUE(outcome.warnings[0].empty()) << outcome.warnings[0][0];
        }
        ASSERT_EQ(LoadNewest(disk, problem), 40);
        ASSERT_EQ(problem, "");
        const std::vector<std::string> names = *disk.List(kCheckpoints);
        for (const std::string& name : names) {
          ASSERT_TRUE(name.rfind("step-", 0) != 0 || name.rfind("step-00000040", 0) == 0)
              << name << " is left behind";
        }
      }
    });
    if (testing::Test::HasFatalFailure()) {
      ADD_FAILURE() << "the operation before the cut: " << (cut == 0 ? "none" : log[cut - 1].text);
      return;
    }
  }
  // While a commit is in flight both outcomes do occur, or the simulation is too kind.
  for (size_t w = 0; w < windows.size(); ++w) {
    EXPECT_TRUE(seen_in_window.count({w, windows[w].step})) << w;
    EXPECT_TRUE(seen_in_window.count({w, w == 0 ? -1 : windows[w - 1].step})) << w;
  }
  EXPECT_GT(states, static_cast<int64_t>(log.size()) * 3);
  std::printf("%lld states at %zu cuts\n", static_cast<long long>(states), log.size() + 1);
}

TEST(CrashStatesTest, Sample) { CutPowerEverywhere(SaveMode::kSynchronous, 40, 50); }
TEST(CrashStatesTest, SampleOfLazySaves) { CutPowerEverywhere(SaveMode::kLazy, 40, 50); }
TEST(CrashStatesTest, DISABLED_All) { CutPowerEverywhere(SaveMode::kSynchronous, 2000, 200); }
TEST(CrashStatesTest, DISABLED_AllOfLazySaves) { CutPowerEverywhere(SaveMode::kLazy, 2000, 200); }

// The simulation itself can lose, tear and reorder: a writer that forgets a sync is caught.
TEST(CrashStatesTest, AForgottenSyncIsCaught) {
  const auto outcomes = [](bool sync_file, bool sync_directory) {
    SimulatedDisk disk;
    auto file = disk.Create("/run/a.tmp");
    EXPECT_TRUE((*file)->WriteAt(0, std::string(2000, 'x').data(), 2000).ok());
    if (sync_file) {
      EXPECT_TRUE((*file)->Sync().ok());
    }
    EXPECT_TRUE(disk.Rename("/run/a.tmp", "/run/a").ok());
    if (sync_directory) {
      EXPECT_TRUE(disk.SyncDirectory("/run").ok());
    }
    std::set<std::string> seen;
    const auto log = disk.operations();
    SimulatedDisk::VisitCrashStates(log, log.size(), 1000, 1, [&](SimulatedDisk& crashed) {
      if (!crashed.Exists("/run/a")) {
        seen.insert("none");
      } else {
        const std::string content = *crashed.ReadAll("/run/a");
        seen.insert(content == std::string(2000, 'x') ? "whole"
                    : content.empty()                 ? "empty"
                                                      : "torn");
      }
    });
    return seen;
  };
  EXPECT_EQ(outcomes(true, true), (std::set<std::string>{"whole"}));
  EXPECT_EQ(outcomes(true, false), (std::set<std::string>{"none", "whole"}));
  EXPECT_EQ(outcomes(false, true), (std::set<std::string>{"empty", "torn", "whole"}));
  EXPECT_EQ(outcomes(false, false), (std::set<std::string>{"empty", "none", "torn", "whole"}));
}

}  // namespace
}  // namespace longspan
