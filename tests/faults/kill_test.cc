// Real processes, killed with SIGKILL before, in the middle of and after every file operation of
// every rank, and at random times; after each kill the newest committed step is there, whole, never
// older than the last one that was reported, and the run goes on from it on another number of
// ranks. So with steps in tiers alone, where the node of the rank that was killed may be lost too.
//
//   LONGSPAN_KILLS   random kills (tests/run.sh --full: 10,000)
//   LONGSPAN_SEED    of the random kills
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <new>
#include <random>
#include <set>

#include "../checkpoint/scratch_directory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "checkpoint/storage.h"
#include "kill_point.h"
#include "process_transport.h"
#include "saving_job.h"

namespace longspan {
namespace {

constexpr int kMostRanks = 4;

int64_t Setting(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

// What ranks leave behind when they die: memory that all processes share.
struct Notes {
  std::atomic<int64_t> reported{0};  // newest step whose commit a rank was told of
  std::atomic<int64_t> resumed{0};
  std::atomic<int64_t> resumed_ranks{0};
  std::atomic<int64_t> older_taken{0};
  std::atomic<int64_t> failed_saves{0};
  struct Rank {
    std::atomic<int64_t> operations{0};
    char at[64] = {};           // the operation it is in
    char labels[300][40] = {};  // of its operations, in order
    char failure[400] = {};
  } ranks[kMostRanks];
};

class SharedNotes {
 public:
  SharedNotes() {
    void* memory =
        mmap(nullptr, sizeof(Notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    notes_ = new (memory) Notes();
  }
  ~SharedNotes() { munmap(notes_, sizeof(Notes)); }
  SharedNotes(const SharedNotes&) = delete;
  SharedNotes& operator=(const SharedNotes&) = delete;
  Notes* operator->() const { return notes_; }
  Notes& operator*() const { return *notes_; }

 private:
  Notes* notes_;
};

void Raise(std::atomic<int64_t>& value, int64_t to) {
  int64_t now = value;
  while (now < to && !value.compare_exchange_weak(now, to)) {
  }
}

// One attempt of forked ranks.
ProcessesEnd RunJob(const SavingJob& job, int ranks, const KillPoint& point, Notes& notes,
                    std::function<void(const std::vector<pid_t>&)> running = nullptr) {
  ProcessOptions options;
  options.timeout = absl::Seconds(120);
  options.running = std::move(running);
  options.where = [&](int rank) { return absl::StrCat("in ", notes.ranks[rank].at); };
  return RunProcesses(
      ranks,
      [&](Transport& transport) -> int {
        Notes::Rank& mine = notes.ranks[transport.rank()];
        std::mutex mutex;  // a rank's operations come from several threads
        KillWatcher watcher(point, transport.rank(), [&](const FileOperation& operation) {
          const std::lock_guard lock(mutex);
          const int64_t index = mine.operations++;
          std::snprintf(mine.at, sizeof(mine.at), "%s", operation.text().c_str());
          if (index < 300) {
            std::snprintf(mine.labels[index], sizeof(mine.labels[index]), "%s",
                          operation.label().c_str());
          }
        });
        // Threads rather than io_uring, whose set-up would take most of such a short life.
        auto storage = OpenStorage({.engine = StorageOptions::Engine::kThreads});
        if (!storage.ok()) return 2;
        WatchedFiles files(**storage, watcher);
        MemoryTable memory;
        const absl::Status status = RunSavingJob(
            job, files, memory, transport,
            {[&](const JobStart& start) {
               notes.resumed = start.step;
               notes.resumed_ranks = start.ranks;
               notes.older_taken = start.older_taken;
             },
             [&](const std::string& tier, int64_t step, const absl::Status& saved,
                 const SaveReport& report) {
               if (saved.ok()) {
                 // A warning of a tier says that a node lacks the commit record.
                 if (tier.empty() || report.warnings.empty()) Raise(notes.reported, step);
               } else if (!absl::IsUnavailable(saved)) {
                 ++notes.failed_saves;
                 std::snprintf(mine.failure, sizeof(mine.failure), "%s", saved.ToString().c_str());
               }
             }});
        if (status.ok()) return 0;
        if (absl::IsUnavailable(status)) return 3;
        std::snprintf(mine.failure, sizeof(mine.failure), "%s", status.ToString().c_str());
        return 1;
      },
      options);
}

// Ranks in turn on `nodes` nodes.
std::vector<int> InTurn(int ranks, int nodes) {
  std::vector<int> node_of(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) node_of[rank] = rank % nodes;
  return node_of;
}

int NodesOf(const SavingJob& job) {
  return job.nodes.empty() ? 1 : *std::max_element(job.nodes.begin(), job.nodes.end()) + 1;
}

// The newest step that is whole, 0 if there is none.
int64_t Newest(const SavingJob& job, int ranks, std::string& problem) {
  const int64_t newest =
      CheckCheckpoints(PosixFileSystem(), job.directory, ranks, job.scale, problem);
  if (job.tiers.empty()) return newest;
  const std::set<int64_t> whole = CheckTiers(PosixFileSystem(), job, NodesOf(job), problem);
  return whole.empty() ? newest : std::max(newest, *whole.rbegin());
}

// What must hold after any attempt that was killed. `before`: the newest step when it began.
void CheckAfterKill(const SavingJob& job, int ranks, const ProcessesEnd& end, Notes& notes,
                    int64_t before) {
  ASSERT_EQ(end.time_out, "");
  for (int rank = 0; rank < ranks; ++rank) {
    // Killed, told that a peer is gone, or through already; never a failure of its own.
    ASSERT_TRUE(end.ends[rank] == -SIGKILL || end.ends[rank] == 3 || end.ends[rank] == 0)
        << "rank " << rank << " ended with " << end.ends[rank] << ": " << notes.ranks[rank].failure;
  }
  std::string problem;
  const int64_t newest = Newest(job, ranks == 1 ? 3 : ranks, problem);
  ASSERT_EQ(problem, "");
  ASSERT_GE(newest, std::max(before, notes.reported.load())) << "a reported step is lost";
  ASSERT_LE(newest, before + job.saves);
}

// Goes on with `ranks` ranks to the end of one more save.
void CheckRestart(SavingJob job, int ranks, int64_t newest) {
  SharedNotes notes;
  job.saves = 1;
  if (!job.nodes.empty()) job.nodes = InTurn(ranks, NodesOf(job));
  const ProcessesEnd end = RunJob(job, ranks, {}, *notes);
  ASSERT_EQ(end.time_out, "");
  for (int rank = 0; rank < ranks; ++rank) {
    ASSERT_EQ(end.ends[rank], 0) << "rank " << rank << ": " << notes->ranks[rank].failure;
  }
  ASSERT_EQ(notes->resumed, newest);
  ASSERT_EQ(notes->older_taken, 0);
  ASSERT_EQ(notes->failed_saves, 0) << notes->ranks[0].failure;
  ASSERT_EQ(notes->reported, newest + 1);
  std::string problem;
  ASSERT_EQ(Newest(job, ranks, problem), newest + 1);
  ASSERT_EQ(problem, "");
  auto left = LeftoverSteps(PosixFileSystem(), job.directory);
  for (int node = 0; node < NodesOf(job); ++node) {
    for (const TierDirectory& tier : TiersOfNode(job, node)) {
      for (std::string& path : LeftoverOnNode(PosixFileSystem(), tier.directory)) {
        left.push_back(std::move(path));
      }
    }
  }
  ASSERT_TRUE(left.empty()) << left[0] << " is left behind";
}

struct Tally {
  int64_t kills = 0, survivors = 0, nodes_lost = 0;
  std::set<std::string> labels;
};

struct KillCase {
  std::string name;
  SaveMode mode = SaveMode::kLazy;
  int ranks = 1;
  std::vector<SavingJob::Tier> tiers;  // with them, nothing goes to the checkpoint directory
  int nodes = 1;
};

class EveryPoint : public testing::TestWithParam<KillCase> {
 protected:
  static SavingJob JobOf(const KillCase& described, const std::string& directory) {
    SavingJob job{directory, described.mode, 2, 1};
    if (described.tiers.empty()) return job;
    job.every = 0;
    job.tiers = described.tiers;
    job.nodes = InTurn(described.ranks, described.nodes);
    return job;
  }
  // A copy of scratch/base, for `job` to go on from.
  static void CopyBase(const std::string& to, SavingJob& job) {
    std::filesystem::copy(std::filesystem::path(to).parent_path() / "base", to,
                          std::filesystem::copy_options::recursive);
    job.directory = to + "/run/checkpoints";
  }

  // Kills at every `stride`-th point.
  void KillAt(int64_t stride) {
    const int ranks = GetParam().ranks;
    const auto begin = std::chrono::steady_clock::now();
    ScratchDirectory scratch;
    SavingJob job = JobOf(GetParam(), scratch / "base/run/checkpoints");
    for (int node = 0; node < NodesOf(job); ++node) {
      std::filesystem::create_directories(NodeFolder(job, node));
    }
    {
      SharedNotes notes;
      const ProcessesEnd end = RunJob(job, ranks, {}, *notes);
      for (int rank = 0; rank < ranks; ++rank) {
        ASSERT_EQ(end.ends[rank], 0) << notes->ranks[rank].failure << end.time_out;
      }
    }
    std::vector<std::vector<std::string>> labels(ranks);
    {
      // The attempt that will be killed, once to its end.
      SharedNotes notes;
      CopyBase(scratch / "whole", job);
      RunJob(job, ranks, {}, *notes);
      for (int rank = 0; rank < ranks; ++rank) {
        const int64_t operations = notes->ranks[rank].operations;
        ASSERT_LE(operations, 300);
        for (int64_t i = 0; i < operations; ++i) {
          labels[rank].push_back(notes->ranks[rank].labels[i]);
        }
      }
    }
    const std::vector<KillPoint> points = AllKillPoints(labels);
    ASSERT_GE(points.size(), 100u);
    Tally tally;
    std::set<int64_t> outcomes;
    for (size_t i = static_cast<size_t>(ranks) % stride; i < points.size();
         i += static_cast<size_t>(stride)) {
      SCOPED_TRACE(points[i].text());
      // In a lazy save several threads share the operations, in an order of the moment: an attempt
      // may come to its end without this one. Such a point gets another.
      constexpr int kTries = 5;
      bool killed = false;
      int64_t reported = 0;
      for (int attempt = 0; attempt < kTries && !killed; ++attempt) {
        SharedNotes notes;
        std::filesystem::remove_all(scratch / "killed");
        CopyBase(scratch / "killed", job);
        const ProcessesEnd end = RunJob(job, ranks, points[i], *notes);
        killed = end.ends[points[i].rank] == -SIGKILL;
        reported = notes->reported;
        CheckAfterKill(job, ranks, end, *notes, 2);
        if (HasFatalFailure()) return;
      }
      if (killed) {
        ++tally.kills;
        tally.labels.insert(points[i].label);
      } else {
        ++tally.survivors;
      }
      std::string problem;
      if (!job.tiers.empty() && i / static_cast<size_t>(stride) % 4 < 2) {
        // With its process the node goes, and another one is there without its files. What a rank
        // was told of stays.
        const int node = job.nodes[points[i].rank];
        std::filesystem::remove_all(NodeFolder(job, node));
        std::filesystem::create_directories(NodeFolder(job, node));
        ++tally.nodes_lost;
      }
      const int64_t newest = Newest(job, 1, problem);
      ASSERT_GE(newest, std::max<int64_t>(2, reported)) << "a reported step is lost with a node";
      outcomes.insert(newest);
      const int more = job.tiers.empty() ? ranks % 3 + 1 : ranks + 1;
      CheckRestart(job, i % 2 == 0 ? ranks : more, newest);
      if (HasFatalFailure()) return;
      std::filesystem::remove_all(scratch / "killed");
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf(
        "%lld kills at %zu points with %zu labels, %lld points not reached, %lld nodes lost too, "
        "%.0f "
        "a minute\n",
        static_cast<long long>(tally.kills), points.size(), tally.labels.size(),
        static_cast<long long>(tally.survivors), static_cast<long long>(tally.nodes_lost),
        static_cast<double>(tally.kills) / seconds * 60);
    EXPECT_LE(tally.survivors * 100, tally.kills);
    EXPECT_GE(outcomes.size(), 2u) << "kills came before and after a commit";
  }
};

TEST_P(EveryPoint, Sample) { KillAt(31); }
TEST_P(EveryPoint, DISABLED_All) { KillAt(1); }

std::vector<KillCase> Cases() {
  std::vector<KillCase> cases;
  for (const int ranks : {1, 2, 3}) {
    cases.push_back({absl::StrCat("Synchronous", ranks), SaveMode::kSynchronous, ranks});
  }
  for (const int ranks : {1, 2, 3}) {
    cases.push_back({absl::StrCat("Lazy", ranks), SaveMode::kLazy, ranks});
  }
  cases.push_back({"Partner2", SaveMode::kLazy, 2, {{"memory", 1, 1, true}}, 2});
  cases.push_back({"Partner3", SaveMode::kLazy, 3, {{"memory", 1, 1, true}}, 2});
  cases.push_back({"Parity3", SaveMode::kLazy, 3, {{"memory", 1, 1, false, {2, 1}}}, 3});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Kills, EveryPoint, testing::ValuesIn(Cases()),
                         [](const auto& param) { return param.param.name; });

// A run that is killed again and again, at random, and goes on each time on a number of ranks drawn
// anew.
TEST(RandomKillsTest, ARunGoesOn) {
  const int64_t kills = Setting("LONGSPAN_KILLS", 40);
  const auto seed = static_cast<uint64_t>(Setting("LONGSPAN_SEED", 1));
  std::mt19937_64 random(seed);
  const auto below = [&](int64_t limit) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(limit));
  };
  const auto begin = std::chrono::steady_clock::now();
  int64_t done = 0, at_operations = 0, of_all = 0, attempts = 0, unheard = 0, leftovers = 0;
  int64_t fewer = 0, more = 0, steps = 0;
  while (done < kills) {
    // A run of its own from time to time: generations are kept for good.
    ScratchDirectory scratch;
    int64_t newest = 0, last_ranks = 0;
    for (int64_t attempt = 0; attempt < 100 && done < kills; ++attempt, ++attempts) {
      SavingJob job{scratch / "checkpoints",
                    below(2) == 0 ? SaveMode::kSynchronous : SaveMode::kLazy, 1000,
                    static_cast<int>(1 + below(3))};
      const int ranks = static_cast<int>(1 + below(3));
      SCOPED_TRACE(
          absl::StrCat("LONGSPAN_SEED=", seed, ", kill ", done + 1, ", ", ranks, " ranks"));
      KillPoint point;
      std::function<void(const std::vector<pid_t>&)> running;
      const bool random_time = below(2) == 0;
      const bool all = random_time && below(2) == 0;
      if (random_time) {
        const auto victim = static_cast<size_t>(below(ranks));
        const auto after = absl::Microseconds(500 + below(30000));
        running = [=](const std::vector<pid_t>& processes) {
          absl::SleepFor(after);
          for (size_t rank = 0; rank < processes.size(); ++rank) {
            if (all || rank == victim) kill(processes[rank], SIGKILL);
          }
        };
      } else {
        point.when = static_cast<KillPoint::When>(KillPoint::kBefore + below(3));
        point.rank = static_cast<int>(below(ranks));
        point.nth = 1 + below(60);
      }
      SharedNotes notes;
      const ProcessesEnd end = RunJob(job, ranks, point, *notes, running);
      const auto killed = std::count(end.ends.begin(), end.ends.end(), -SIGKILL);
      ASSERT_GE(killed, 1);
      done += killed;
      at_operations += random_time ? 0 : 1;
      of_all += all ? 1 : 0;
      CheckAfterKill(job, ranks, end, *notes, newest);
      if (HasFatalFailure()) return;
      if (notes->resumed_ranks != 0) {
        ASSERT_EQ(notes->resumed, newest);
        ASSERT_EQ(notes->older_taken, 0);
        fewer += ranks < last_ranks;
        more += ranks > last_ranks;
      }
      std::string problem;
      const int64_t now = CheckCheckpoints(PosixFileSystem(), job.directory, 1, 1, problem);
      unheard += now > std::max(newest, notes->reported.load());
      leftovers += !LeftoverSteps(PosixFileSystem(), job.directory).empty();
      if (now > newest) last_ranks = ranks;
      steps += now - newest;
      newest = now;
    }
    SavingJob job{scratch / "checkpoints", SaveMode::kLazy, 1};
    CheckRestart(job, 2, newest);
    if (HasFatalFailure()) return;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf(
      "%lld processes killed in %lld attempts (%lld at an operation, %lld all ranks at once), "
      "%.0f a minute; %lld steps committed; %lld commits that nobody had heard of, %lld torn steps "
      "left behind and removed later; resumed %lld times on fewer ranks, %lld on more\n",
      static_cast<long long>(done), static_cast<long long>(attempts),
      static_cast<long long>(at_operations), static_cast<long long>(of_all),
      static_cast<double>(done) / seconds * 60, static_cast<long long>(steps),
      static_cast<long long>(unheard), static_cast<long long>(leftovers),
      static_cast<long long>(fewer), static_cast<long long>(more));
  EXPECT_GE(fewer, 1);
  EXPECT_GE(more, 1);
  EXPECT_GE(leftovers, 1);
}

}  // namespace
}  // namespace longspan
