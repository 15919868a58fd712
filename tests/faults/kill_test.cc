// Real processes, killed with SIGKILL before, in the middle of and after every file operation of
// every rank, and at random times; after each kill the newest committed step is there, whole, never
// older than the last one that was reported, and the run goes on from it on another number of
// ranks. So with steps in tiers, where the node of the rank that was killed, or any node, may be
// lost too.
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
#include <map>
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
  std::atomic<int64_t> kept{0};      // and that does not go with a node
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

// Whether what is saved there stays when a node is lost.
bool Outlives(const SavingJob& job, const std::string& place) {
  for (const SavingJob::Tier& tier : job.tiers) {
    if (tier.name == place) return tier.partner || !tier.erasure.off();
  }
  return true;
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
                 if (!tier.empty() && !report.warnings.empty()) return;
                 Raise(notes.reported, step);
                 if (Outlives(job, tier)) Raise(notes.kept, step);
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

// The node goes, with all that it has, and another one is there in its place.
void LoseNode(const SavingJob& job, int node) {
  std::filesystem::remove_all(NodeFolder(job, node));
  std::filesystem::create_directories(NodeFolder(job, node));
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

// Goes on with `ranks` ranks to the end of one more save. `lost`: with a node, so that a newer step
// may be passed over.
void CheckRestart(SavingJob job, int ranks, int64_t newest, bool lost = false) {
  SharedNotes notes;
  job.saves = 1;
  if (!job.nodes.empty()) job.nodes = InTurn(ranks, NodesOf(job));
  const ProcessesEnd end = RunJob(job, ranks, {}, *notes);
  ASSERT_EQ(end.time_out, "");
  for (int rank = 0; rank < ranks; ++rank) {
    ASSERT_EQ(end.ends[rank], 0) << "rank " << rank << ": " << notes->ranks[rank].failure;
  }
  ASSERT_EQ(notes->resumed, newest);
  if (!lost) {
    ASSERT_EQ(notes->older_taken, 0);
  }
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
        // What a rank was told of stays.
        LoseNode(job, job.nodes[points[i].rank]);
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

// Where a run saves that is killed at random.
struct RunKind {
  const char* name;
  std::vector<SavingJob::Tier> tiers;
  int nodes = 1;
  int64_t every = 1;  // steps between saves to the checkpoint directory; 0: none
};

// Half of the runs have tiers.
std::vector<RunKind> RunKinds() {
  const SavingJob::Tier copies{"memory", 1, 1, true}, parity{"memory", 1, 1, false, {2, 1}};
  return {
      {"no tier", {}}, {"copies", {copies}, 2, 0},
      {"no tier", {}}, {"parity", {parity}, 3, 0},
      {"no tier", {}}, {"copies, and a disk of every node", {copies, {"local", 2, 2}}, 2, 5},
      {"no tier", {}}, {"parity, and the checkpoint directory", {parity}, 3, 3},
      {"no tier", {}}, {"a disk of the node", {{"local", 1, 2}}, 1, 4},
  };
}

// Runs that are killed again and again, at random, and go on each time on a number of ranks drawn
// anew; those with tiers lose a node from time to time.
class RandomKillsTest : public testing::Test {
 protected:
  int64_t Below(int64_t limit) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(limit));
  }

  SavingJob Draw(const RunKind& kind, const std::string& directory) {
    SavingJob job{directory, SaveMode::kLazy, 1000, static_cast<int>(1 + Below(3))};
    if (kind.tiers.empty() && Below(2) == 0) job.mode = SaveMode::kSynchronous;
    job.every = kind.every;
    job.tiers = kind.tiers;
    ranks_ = static_cast<int>(kind.nodes == 1 ? 1 + Below(3) : kind.nodes + Below(2));
    if (!job.tiers.empty()) job.nodes = InTurn(ranks_, kind.nodes);
    return job;
  }

  // An attempt that is killed, at an operation or at some time, counted from its beginning or from
  // its first commit.
  ProcessesEnd Kill(const SavingJob& job, Notes& notes) {
    KillPoint point;
    if (Below(2) == 0) {
      const bool all = Below(2) == 0, committed = Below(2) == 0;
      const auto victim = static_cast<size_t>(Below(ranks_));
      const auto after = absl::Microseconds(500 + Below(30000));
      of_all_ += all ? 1 : 0;
      return RunJob(job, ranks_, point, notes, [=, &notes](const std::vector<pid_t>& processes) {
        const absl::Time patience = absl::Now() + absl::Seconds(60);
        while (committed && notes.reported == 0 && absl::Now() < patience) {
          absl::SleepFor(absl::Milliseconds(1));
        }
        absl::SleepFor(after);
        for (size_t rank = 0; rank < processes.size(); ++rank) {
          if (all || rank == victim) kill(processes[rank], SIGKILL);
        }
      });
    }
    point.when = static_cast<KillPoint::When>(KillPoint::kBefore + Below(3));
    point.rank = static_cast<int>(Below(ranks_));
    point.nth = 1 + Below(60);
    ++at_operations_;
    return RunJob(job, ranks_, point, notes);
  }

  // One run of up to `most` attempts.
  void KillARun(const RunKind& kind, int64_t kills, int64_t most) {
    ScratchDirectory scratch;
    const std::string directory = scratch / "checkpoints";
    int64_t newest = 0, last_ranks = 0;
    // The newest step that no single node can take along, and whether that is so still: once a node
    // is lost, only a step that is saved after it is kept again.
    int64_t kept = 0;
    bool may_lose = false, lost = false;
    for (int64_t attempt = 0; attempt < most && done_ < kills; ++attempt, ++attempts_) {
      const SavingJob job = Draw(kind, directory);
      SCOPED_TRACE(absl::StrCat("kill ", done_ + 1, ", ", kind.name, ", ", ranks_, " ranks"));
      for (int node = 0; node < NodesOf(job); ++node) {
        std::filesystem::create_directories(NodeFolder(job, node));
      }
      SharedNotes notes;
      const ProcessesEnd end = Kill(job, *notes);
      const auto killed = std::count(end.ends.begin(), end.ends.end(), -SIGKILL);
      ASSERT_GE(killed, 1);
      done_ += killed;
      by_kind_[kind.name] += killed;
      CheckAfterKill(job, ranks_, end, *notes, newest);
      if (HasFatalFailure()) return;
      if (notes->resumed_ranks != 0) {
        ASSERT_EQ(notes->resumed, newest);
        // A step that has lost a file with a node is passed over.
        if (!lost) {
          ASSERT_EQ(notes->older_taken, 0);
        }
        fewer_ += ranks_ < last_ranks;
        more_ += ranks_ > last_ranks;
      }
      std::string problem;
      int64_t now = Newest(job, 1, problem);
      unheard_ += now > std::max(newest, notes->reported.load());
      leftovers_ += !LeftoverSteps(PosixFileSystem(), directory).empty();
      if (now > newest) last_ranks = ranks_;
      steps_ += now - newest;
      if (notes->kept > kept) {
        kept = notes->kept;
        may_lose = true;
        lost = false;
      }
      if (kind.nodes > 1 && may_lose && Below(2) == 0) {
        LoseNode(job, static_cast<int>(Below(kind.nodes)));
        ++nodes_lost_;
        may_lose = false;
        lost = true;
        now = Newest(job, 1, problem);
        ASSERT_EQ(problem, "");
        ASSERT_GE(now, kept) << "a reported step is lost with a node";
      }
      newest = now;
    }
    SavingJob job = Draw(kind, directory);
    job.every = std::min<int64_t>(job.every, 1);
    for (SavingJob::Tier& tier : job.tiers) tier.every = 1;
    CheckRestart(job, std::max(2, kind.nodes), newest, lost);
  }

  std::mt19937_64 random_;
  int ranks_ = 0;  // of the attempt
  int64_t done_ = 0, at_operations_ = 0, of_all_ = 0, attempts_ = 0, unheard_ = 0, leftovers_ = 0;
  int64_t fewer_ = 0, more_ = 0, steps_ = 0, nodes_lost_ = 0, runs_ = 0;
  std::map<std::string, int64_t> by_kind_;  // processes killed
};

TEST_F(RandomKillsTest, RunsGoOn) {
  const int64_t kills = Setting("LONGSPAN_KILLS", 80);
  const auto seed = static_cast<uint64_t>(Setting("LONGSPAN_SEED", 1));
  random_.seed(seed);
  const std::vector<RunKind> kinds = RunKinds();
  const auto begin = std::chrono::steady_clock::now();
  // Generations are kept for good, so a run of its own from time to time; of every kind a few.
  const int64_t most = std::clamp<int64_t>(kills / 20, 4, 100);
  for (; done_ < kills; ++runs_) {
    SCOPED_TRACE(absl::StrCat("LONGSPAN_SEED=", seed, ", run ", runs_));
    KillARun(kinds[static_cast<size_t>(runs_) % kinds.size()], kills, most);
    if (HasFatalFailure()) return;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf(
      "%lld processes killed in %lld attempts of %lld runs (%lld at an operation, %lld all ranks "
      "at "
      "once), %.0f a minute; %lld steps committed; %lld commits that nobody had heard of, %lld "
      "torn "
      "steps left behind and removed later; resumed %lld times on fewer ranks, %lld on more; %lld "
      "nodes lost\n",
      static_cast<long long>(done_), static_cast<long long>(attempts_),
      static_cast<long long>(runs_), static_cast<long long>(at_operations_),
      static_cast<long long>(of_all_), static_cast<double>(done_) / seconds * 60,
      static_cast<long long>(steps_), static_cast<long long>(unheard_),
      static_cast<long long>(leftovers_), static_cast<long long>(fewer_),
      static_cast<long long>(more_), static_cast<long long>(nodes_lost_));
  for (const auto& [kind, killed] : by_kind_) {
    std::printf("  %s: %lld\n", kind.c_str(), static_cast<long long>(killed));
  }
  EXPECT_GE(fewer_, 1);
  EXPECT_GE(more_, 1);
  EXPECT_GE(leftovers_, 1);
  for (const RunKind& kind : kinds) EXPECT_GE(by_kind_[kind.name], 1) << kind.name;
  EXPECT_LE(by_kind_["no tier"], kills * 2 / 3);
  EXPECT_GE(nodes_lost_, 1);
}

}  // namespace
}  // namespace longspan
