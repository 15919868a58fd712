#include "scenario_run.h"

#include <fnmatch.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/storage.h"
#include "fault_plan.h"
#include "faulty_transport.h"
#include "parallel/transport/rank_threads.h"
#include "saving_job.h"
#include "simulated_disk.h"
#include "system_calls.h"
#include "watched_files.h"

namespace longspan {
namespace {

// How a save ended, in the words of `permitted`.
std::string EndOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return "committed";
    case absl::StatusCode::kResourceExhausted:
      return "disk full";
    case absl::StatusCode::kUnknown:
      return "io error";
    case absl::StatusCode::kDeadlineExceeded:
      return "timed out";
    case absl::StatusCode::kUnavailable:
      return "peer gone";
    case absl::StatusCode::kFailedPrecondition:
      return "fenced off";
    case absl::StatusCode::kAborted:
      return "partner failed";
    default:
      return status.ToString();
  }
}

bool Definite(const std::string& end) { return end != "timed out" && end != "peer gone"; }

class Run {
 public:
  Run(const Scenario& scenario, uint64_t seed, std::string directory, ScenarioTally& tally)
      : scenario_(scenario), random_(seed), tally_(tally) {
    if (scenario.real_disk) {
      directory_ = std::move(directory);
      real_ = *OpenStorage({.engine = StorageOptions::Engine::kThreads});
    } else {
      directory_ = kCheckpoints;
      simulated_ = std::make_unique<SimulatedDisk>();
    }
  }

  std::string Play() {
    for (size_t i = 0; i < scenario_.attempts.size() && problem_.empty(); ++i) {
      const AttemptDescription& attempt = scenario_.attempts[i];
      for (const DamageDescription& damage : attempt.damages) Damage(damage);
      if (!attempt.damages.empty()) {
        const int64_t before = std::exchange(newest_, Newest(1));
        // A node that is lost takes a step with it that no other has the commit record of, which
        // is reported with a warning or not at all. What a file of the checkpoint directory was
        // damaged for may be gone.
        if (damaged_.empty() && !attempt.loses && newest_ < on_all_nodes_) {
          Fail(absl::StrCat("step ", on_all_nodes_, " is lost, the newest is ", newest_));
        }
        if (attempt.loses && newest_ == before) Fail("nothing was lost");
      }
      if (problem_.empty()) PlayAttempt(attempt, static_cast<int>(i));
      if (!problem_.empty()) return absl::StrCat("attempt ", i + 1, ": ", problem_);
    }
    for (const std::string& step : Leftovers()) {
      // Damaged ones are kept for who wants to look at them.
      if (damaged_.count(step) == 0) absl::StrAppend(&problem_, step, " is left behind\n");
    }
    return problem_;
  }

 private:
  struct RankEnd {
    absl::Status status;
    bool started = false, dead = false;
  };
  using SaveKey = std::pair<std::string, int64_t>;  // tier, step
  // What the ranks of an attempt have said.
  struct Attempt {
    int ranks = 1;
    std::mutex mutex;
    std::vector<RankEnd> ends;
    JobStart start;
    std::map<SaveKey, std::vector<std::optional<absl::Status>>> saves;  // by rank
    int64_t reported = 0, on_all_nodes = 0, warned = 0, overlapped = 0, waited = 0;
  };

  FileSystem& disk() { return simulated_ ? static_cast<FileSystem&>(*simulated_) : *real_; }
  void Hit(const std::string& probe) { ++tally_.probes[probe]; }
  int64_t Draw(const Drawn& drawn) {
    return drawn.low +
           static_cast<int64_t>(random_() % static_cast<uint64_t>(drawn.high - drawn.low + 1));
  }

  // The newest step that is whole, in any place.
  int64_t Newest(int ranks) {
    int64_t newest =
        CheckCheckpoints(disk(), directory_, ranks, scenario_.scale, problem_, damaged_);
    if (!job_.tiers.empty()) {
      const std::set<int64_t> whole = CheckTiers(disk(), job_, nodes_, problem_);
      if (!whole.empty()) newest = std::max(newest, *whole.rbegin());
    }
    return newest;
  }

  std::vector<std::string> Leftovers() {
    std::vector<std::string> left = LeftoverSteps(disk(), directory_);
    for (int node = 0; node < nodes_; ++node) {
      for (const TierDirectory& tier : TiersOfNode(job_, node)) {
        for (std::string& path : LeftoverOnNode(disk(), tier.directory)) {
          left.push_back(std::move(path));
        }
      }
    }
    return left;
  }

  void RemoveAll(const std::string& path) {
    const auto names = disk().List(path);
    if (names.ok()) {
      for (const std::string& name : *names) RemoveAll(absl::StrCat(path, "/", name));
    }
    disk().Remove(path).IgnoreError();
  }

  // The step directory that damage is done to, "" if there is none.
  std::string DamagedStep(const DamageDescription& damage, int node) {
    if (damage.in == "checkpoints") {
      const auto found = ListCheckpoints(disk(), directory_);
      return !found.ok() || found->empty() ? "" : found->front().directory;
    }
    const std::string tier = absl::StrCat(NodeFolder(job_, node), "/", damage.in);
    const auto names = disk().List(tier);
    return !names.ok() || names->empty() ? "" : absl::StrCat(tier, "/", names->back());
  }

  void Damage(const DamageDescription& damage) {
    const auto node = static_cast<int>(Draw(damage.node));
    if (damage.what == "lose node") {
      // Another machine takes its place.
      RemoveAll(NodeFolder(job_, node));
      if (absl::Status made = disk().CreateDirectory(NodeFolder(job_, node)); !made.ok()) {
        Fail(made.ToString());
      }
      lost_ = true;
      return;
    }
    const std::string step = DamagedStep(damage, node);
    if (step.empty()) return;
    const auto names = disk().List(step);
    std::vector<std::string> matching;
    for (const std::string& name : *names) {
      if (fnmatch(damage.file.c_str(), name.c_str(), 0) == 0) matching.push_back(name);
    }
    if (matching.empty()) {
      problem_ = absl::StrCat("no file ", damage.file, " to damage");
      return;
    }
    const std::string path = absl::StrCat(step, "/", matching[random_() % matching.size()]);
    std::string content = *disk().ReadAll(path);
    disk().Remove(path).IgnoreError();
    if (damage.what != "remove") {
      if (damage.what == "truncate") {
        content.resize(content.size() / 2);
      } else {
        content[random_() % content.size()] ^= static_cast<char>(1 << random_() % 8);
      }
      auto file = disk().Create(path);
      (*file)->WriteAt(0, content.data(), static_cast<int64_t>(content.size())).IgnoreError();
      (*file)->Sync().IgnoreError();
    }
    disk().SyncDirectory(step).IgnoreError();
    if (damage.in == "checkpoints") damaged_.insert(step);
  }

  void PlayAttempt(const AttemptDescription& described, int index) {
    ++tally_.attempts;
    Attempt attempt;
    attempt.ranks = static_cast<int>(Draw(described.ranks));
    attempt.ends.resize(attempt.ranks);
    const size_t leftovers = Leftovers().size();
    FaultPlan plan(
        described, attempt.ranks, random_, [] {}, [this] { StartNewerAttempt(); });
    const uint64_t delays = random_();
    SavingJob& job = job_;
    job = SavingJob();
    job.directory = directory_;
    job.mode = described.mode;
    job.saves = described.saves;
    job.keep_last = static_cast<int>(described.keep_last);
    job.in_flight = static_cast<int>(described.in_flight);
    job.vote_timeout = absl::Milliseconds(described.vote_timeout_ms);
    job.pool_bytes = described.pool_mib << 20;
    job.scale = scenario_.scale;
    job.every = described.every;
    PlaceOnNodes(described, attempt.ranks, job);
    std::optional<SystemCallHook> system_calls;
    if (real_) {
      system_calls.emplace(directory_, [&](const std::string& text) { return OfCall(plan, text); });
    }
    RankThreadOptions patience;
    patience.timeout = absl::Seconds(100);
    const absl::Status run = RunRanks(
        attempt.ranks,
        [&](Transport& transport, Device& device) {
          return PlayRank(described, job, plan, delays, transport, device.memory(), attempt);
        },
        patience);
    system_calls.reset();
    if (absl::IsDeadlineExceeded(run)) problem_ = run.ToString();
    const std::vector<int64_t> injected = plan.injected();
    for (size_t i = 0; i < injected.size(); ++i) {
      const FaultDescription& fault = described.faults[i];
      tally_.injected[absl::StrCat("attempt ", index + 1, ": ", fault.what, " at ", fault.at)] +=
          injected[i];
      if (injected[i] > 0) CountFault(fault, attempt);
    }
    if (plan.power_is_off()) ShowCrashState();
    Check(described, attempt, leftovers);
  }

  void PlaceOnNodes(const AttemptDescription& described, int ranks, SavingJob& job) {
    for (const TierDescription& tier : described.tiers) {
      const Erasure erasure = tier.erasure.empty() ? Erasure() : *ParseErasure(tier.erasure);
      job.tiers.push_back(
          {tier.name, tier.every, static_cast<int>(tier.keep_last), tier.partner, erasure});
    }
    const int nodes = std::min(static_cast<int>(Draw(described.nodes)), ranks);
    nodes_ = std::max(nodes_, nodes);
    for (int rank = 0; rank < ranks; ++rank) job.nodes.push_back(rank * nodes / ranks);
    for (int node = 0; node < nodes && !job.tiers.empty(); ++node) {
      absl::Status made = disk().CreateDirectory(NodeFolder(job, node));
      if (!made.ok() && !absl::IsAlreadyExists(made)) Fail(made.ToString());
    }
  }

  absl::Status PlayRank(const AttemptDescription& described, const SavingJob& job, FaultPlan& plan,
                        uint64_t delays, Transport& transport, MemoryTable& memory,
                        Attempt& attempt) {
    const int rank = transport.rank();
    RankFaults faults(plan, transport);
    WatchedFiles files(disk(), faults);
    FaultyTransport messages(
        transport, [&](const std::string& text) { return faults.BeforeSend(text); },
        std::chrono::milliseconds(described.message_delay_ms),
        delays + static_cast<uint64_t>(rank));
    const absl::Status status =
        RunSavingJob(job, files, memory, messages,
                     {[&](const JobStart& start) {
                        const std::lock_guard lock(attempt.mutex);
                        attempt.ends[rank].started = true;
                        std::vector<std::string> notes = std::move(attempt.start.notes);
                        notes.insert(notes.end(), start.notes.begin(), start.notes.end());
                        attempt.start = start;
                        attempt.start.notes = std::move(notes);
                      },
                      [&](const std::string& tier, int64_t step, const absl::Status& saved,
                          const SaveReport& report) {
                        const std::lock_guard lock(attempt.mutex);
                        // What the dead were told, nobody knows; but it is true all the same.
                        if (faults.dead() && !saved.ok()) return;
                        auto& by_rank = attempt.saves[{tier, step}];
                        by_rank.resize(attempt.ranks);
                        by_rank[rank] = saved;
                        if (saved.ok()) attempt.reported = std::max(attempt.reported, step);
                        if (saved.ok() && report.warnings.empty()) {
                          attempt.on_all_nodes = std::max(attempt.on_all_nodes, step);
                        }
                        attempt.warned += report.warnings.empty() ? 0 : 1;
                        attempt.overlapped += report.backlog_bytes > 0;
                        attempt.waited += report.pool_seconds > 0.001;
                      }});
    const std::lock_guard lock(attempt.mutex);
    attempt.ends[rank].status = status;
    attempt.ends[rank].dead = faults.dead();
    return status;
  }

  static SystemCallFault OfCall(FaultPlan& plan, const std::string& text) {
    const auto fault = plan.Match(-1, text);
    if (!fault) return {};
    if (fault->what == "short") return {0, true};
    if (fault->what == "interrupted") return {EINTR, false};
    if (fault->what == "disk full") return {ENOSPC, false};
    if (fault->what == "io error") return {EIO, false};
    return {};
  }

  // Another attempt of the run claims a generation of its own.
  void StartNewerAttempt() {
    for (int64_t generation = 1; generation < 100; ++generation) {
      char name[32];
      std::snprintf(name, sizeof(name), "/generation-%04d", static_cast<int>(generation));
      if (!disk().Exists(directory_ + name)) {
        disk().Create(directory_ + name).IgnoreError();
        return;
      }
    }
  }

  // One of the states that the disk may be in.
  void ShowCrashState() {
    const std::vector<DiskOperation> log = simulated_->operations();
    const uint64_t seed = random_();
    constexpr int64_t kMost = 100;
    const int64_t states =
        SimulatedDisk::VisitCrashStates(log, log.size(), kMost, seed, [](SimulatedDisk&) {});
    const auto chosen = static_cast<int64_t>(random_() % static_cast<uint64_t>(states));
    std::unique_ptr<SimulatedDisk> shown;
    int64_t state = 0;
    SimulatedDisk::VisitCrashStates(log, log.size(), kMost, seed, [&](SimulatedDisk& disk) {
      if (state++ == chosen) shown = disk.Clone();
    });
    simulated_ = std::move(shown);
    if (states > 1) Hit("a power cut left the disk in one of several states");
  }

  void CountFault(const FaultDescription& fault, const Attempt& attempt) {
    if (fault.what == "disk full") {
      const bool reserved = fault.at.find("reserve ") == 0 || fault.at.find("fallocate ") == 0;
      Hit(reserved ? "disk full was found before the data were written"
                   : "disk full was found while something was written");
    }
    if (fault.what == "short") Hit("a transfer was short");
    if (fault.what == "interrupted") Hit("a call was interrupted");
    if (fault.what == "lose message") Hit("a message was lost");
    if (fault.what == "stop") Hit("a rank was stopped for a time");
    if (attempt.ends[0].dead && fault.what != "power cut") Hit("rank 0 died");
    for (size_t rank = 1; rank < attempt.ends.size(); ++rank) {
      if (attempt.ends[rank].dead) Hit("another rank died");
    }
  }

  void Fail(const std::string& what) { absl::StrAppend(&problem_, what, "\n"); }

  void CheckStart(const AttemptDescription& described, const Attempt& attempt, bool died) {
    for (int rank = 0; rank < attempt.ranks; ++rank) {
      const RankEnd& end = attempt.ends[rank];
      const bool echo = absl::IsUnavailable(end.status) || absl::IsCancelled(end.status);
      if (end.status.ok() || (died && echo)) continue;
      if (described.may_not_start && attempt.saves.empty()) {
        Hit("an attempt could not start");
        continue;
      }
      Fail(absl::StrCat("rank ", rank, " ended: ", end.status.ToString()));
    }
    const JobStart& start = attempt.start;
    if (!attempt.ends[0].started) return;
    if (start.step == 0) Hit("started fresh");
    if (start.older_taken > 0) Hit("fell back to an older checkpoint");
    if (start.step > 0) {
      Hit(start.ranks > attempt.ranks   ? "resumed on fewer ranks"
          : start.ranks < attempt.ranks ? "resumed on more ranks"
                                        : "resumed on as many ranks");
    }
    if (start.step > 0 && start.from_tier) Hit("resumed from a tier");
    const auto noted = [&](const char* text) {
      return std::any_of(start.notes.begin(), start.notes.end(), [&](const std::string& note) {
        return note.find(text) != std::string::npos;
      });
    };
    const bool computed = noted("was computed from parity");
    if (computed) Hit("a file was computed from parity");
    if (noted("is left for another copy")) Hit("a damaged copy was left for another");
    if (std::exchange(lost_, false) && start.step > 0) {
      if (!start.from_tier) Hit("a node was lost, and the checkpoint directory was there");
      if (start.from_tier && !computed) Hit("a lost node's files were with its partner");
    }
    if (start.step != newest_) {
      Fail(absl::StrCat("resumed from step ", start.step, ", the newest is ", newest_));
    }
  }

  // Returns how often saves were committed.
  int64_t CheckSaves(const AttemptDescription& described, const Attempt& attempt) {
    int64_t committed = 0;
    std::map<std::string, bool> failed_before;  // by tier
    for (const auto& [key, by_rank] : attempt.saves) {
      const auto& [tier, step] = key;
      std::set<std::string> ends;
      bool all = true;
      for (const auto& status : by_rank) {
        all = all && status.has_value();
        if (!status) continue;
        const std::string end = EndOf(*status);
        if (ends.insert(end).second) ++tally_.ends[end];
        if (end == "timed out") Hit("a vote timed out");
        if (end == "fenced off") Hit("an older attempt was fenced off");
        if (std::none_of(described.permitted.begin(), described.permitted.end(),
                         [&](const std::string& pattern) {
                           return fnmatch(pattern.c_str(), end.c_str(), 0) == 0;
                         })) {
          Fail(absl::StrCat(tier, " step ", step, " ended with: ", status->ToString()));
        }
      }
      const bool any_committed = ends.count("committed") > 0;
      const bool definite = all && std::all_of(ends.begin(), ends.end(), Definite);
      if (any_committed && definite && ends.size() > 1) {
        Fail(absl::StrCat("ranks do not agree about ", tier, " step ", step));
      }
      const bool once = std::all_of(described.faults.begin(), described.faults.end(),
                                    [](const FaultDescription& fault) { return fault.times == 1; });
      if (!any_committed && definite && once && IsCommitted(tier, step)) {
        Fail(absl::StrCat(tier, " step ", step, " failed and is committed"));
      }
      committed += any_committed;
      if (any_committed && failed_before[tier]) Hit("a save failed and a later one was committed");
      failed_before[tier] |= !any_committed;
      if (!tier.empty() && !any_committed && IsCommitted("", step)) {
        Hit("a tier's save failed, that to the checkpoint directory did not");
      }
    }
    return committed;
  }

  // Saves of an attempt that nothing stops.
  static int64_t Expected(const AttemptDescription& described, int64_t first) {
    std::vector<int64_t> every = {described.every};
    for (const TierDescription& tier : described.tiers) every.push_back(tier.every);
    int64_t expected = 0;
    for (const int64_t steps : every) {
      if (steps > 0) expected += (first + described.saves) / steps - first / steps;
    }
    return expected;
  }

  bool IsCommitted(const std::string& tier, int64_t step) {
    for (int node = 0; node < nodes_ && !tier.empty(); ++node) {
      const std::string folder = absl::StrCat(NodeFolder(job_, node), "/", tier);
      if (CommittedOnNode(disk(), folder).count(step) > 0) return true;
    }
    if (!tier.empty()) return false;
    const auto found = ListCheckpoints(disk(), directory_);
    return found.ok() && std::any_of(found->begin(), found->end(),
                                     [&](const auto& info) { return info.step == step; });
  }

  void Check(const AttemptDescription& described, const Attempt& attempt, size_t leftovers) {
    const bool died = std::any_of(attempt.ends.begin(), attempt.ends.end(),
                                  [](const RankEnd& end) { return end.dead; });
    CheckStart(described, attempt, died);
    const int64_t committed = CheckSaves(described, attempt);
    const int64_t newest = Newest(attempt.ranks);
    if (newest < std::max(newest_, attempt.reported)) {
      Fail(absl::StrCat("the newest step is ", newest, ", although ",
                        std::max(newest_, attempt.reported), " was committed"));
    }
    if (newest > newest_ + described.saves) Fail(absl::StrCat("step ", newest, " from nowhere"));
    const int64_t expected = Expected(described, attempt.start.step);
    if (described.faults.empty() && committed != expected) {
      Fail(absl::StrCat(committed, " of ", expected, " saves were committed"));
    }
    if (died && newest > std::max(newest_, attempt.reported)) Hit("a commit that nobody heard of");
    if (died && newest < newest_ + described.saves) Hit("a save was lost on the way");
    if (attempt.warned > 0) Hit("a save was committed with a warning");
    if (attempt.overlapped > 0) Hit("saves overlapped");
    if (attempt.waited > 0) Hit("an update waited for memory of the pool");
    if (leftovers > 0 && Leftovers().empty()) {
      Hit("what an older attempt left behind was removed");
    }
    newest_ = newest;
    on_all_nodes_ = std::max(on_all_nodes_, attempt.on_all_nodes);
  }

  const Scenario& scenario_;
  std::mt19937_64 random_;
  ScenarioTally& tally_;
  std::string directory_;
  std::unique_ptr<FileSystem> real_;  // one of the two
  std::unique_ptr<SimulatedDisk> simulated_;
  std::set<std::string> damaged_;  // step directories
  SavingJob job_;                  // of the attempt, or the last one
  int nodes_ = 0;                  // that there are
  bool lost_ = false;              // a node, before the attempt
  int64_t newest_ = 0;             // committed step
  int64_t on_all_nodes_ = 0;       // the newest that a rank was told of without a warning
  std::string problem_;
};

}  // namespace

const std::vector<std::string>& KnownProbes() {
  static const std::vector<std::string> probes = {
      "a damaged copy was left for another",
      "a file was computed from parity",
      "a lost node's files were with its partner",
      "a node was lost, and the checkpoint directory was there",
      "a tier's save failed, that to the checkpoint directory did not",
      "resumed from a tier",
      "a call was interrupted",
      "a commit that nobody heard of",
      "a message was lost",
      "a power cut left the disk in one of several states",
      "a rank was stopped for a time",
      "a save failed and a later one was committed",
      "a save was committed with a warning",
      "a save was lost on the way",
      "a transfer was short",
      "a vote timed out",
      "an attempt could not start",
      "an older attempt was fenced off",
      "an update waited for memory of the pool",
      "another rank died",
      "disk full was found before the data were written",
      "disk full was found while something was written",
      "fell back to an older checkpoint",
      "rank 0 died",
      "resumed on as many ranks",
      "resumed on fewer ranks",
      "resumed on more ranks",
      "saves overlapped",
      "started fresh",
      "what an older attempt left behind was removed"};
  return probes;
}

std::string RunScenario(const Scenario& scenario, uint64_t seed, const std::string& directory,
                        ScenarioTally& tally) {
  return Run(scenario, seed, directory, tally).Play();
}

}  // namespace longspan
