#include "fault_plan.h"

#include <fnmatch.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

int64_t Draw(const Drawn& drawn, std::mt19937_64& random) {
  return drawn.low +
         static_cast<int64_t>(random() % static_cast<uint64_t>(drawn.high - drawn.low + 1));
}

// ".../node-1/memory/..." is in "memory".
std::string PlaceOf(const std::string& path) {
  const size_t node = path.find("/node-");
  if (node == std::string::npos) return "checkpoints";
  const size_t tier = path.find('/', node + 1);
  if (tier == std::string::npos) return "";
  return path.substr(tier + 1, path.find('/', tier + 1) - tier - 1);
}

}  // namespace

FaultPlan::FaultPlan(const AttemptDescription& attempt, int ranks, std::mt19937_64& random,
                     std::function<void()> power_off, std::function<void()> newer_attempt)
    : power_off_(std::move(power_off)), newer_attempt_(std::move(newer_attempt)) {
  for (const FaultDescription& described : attempt.faults) {
    Armed armed;
    armed.described = described;
    // A rank above the highest, where fewer take part, is the highest.
    armed.rank = static_cast<int>(std::min<int64_t>(Draw(described.rank, random), ranks - 1));
    armed.nth = Draw(described.nth, random);
    armed.milliseconds = Draw(described.milliseconds, random);
    faults_.push_back(std::move(armed));
  }
}

std::optional<FaultPlan::Fault> FaultPlan::Match(int rank, const std::string& text,
                                                 const std::string& place) {
  const std::lock_guard lock(mutex_);
  std::optional<Fault> fault;
  for (Armed& armed : faults_) {
    if (armed.rank >= 0 && rank >= 0 && armed.rank != rank) continue;
    if (!armed.described.in.empty() && armed.described.in != place) continue;
    if (fnmatch(armed.described.at.c_str(), text.c_str(), 0) != 0) continue;
    const int64_t count = ++armed.matched;
    if (count < armed.nth) continue;
    if (armed.described.times > 0 && count >= armed.nth + armed.described.times) continue;
    if (fault) continue;
    ++armed.injected;
    fault = Fault{armed.described.what, armed.milliseconds};
  }
  return fault;
}

std::vector<int64_t> FaultPlan::injected() const {
  const std::lock_guard lock(mutex_);
  std::vector<int64_t> counts;
  for (const Armed& armed : faults_) counts.push_back(armed.injected);
  return counts;
}

void FaultPlan::CutPower() {
  if (!power_is_off_.exchange(true)) power_off_();
}

void RankFaults::Die() {
  dead_ = true;
  // What mpirun does when a rank dies.
  transport_.Abort("a rank died");
}

void RankFaults::AwaitGo() {
  const Clock::time_point until{Clock::duration(stopped_until_.load())};
  if (until > Clock::now()) std::this_thread::sleep_until(until);
}

absl::Status RankFaults::Bring(const FaultPlan::Fault& fault, const std::string& text) {
  const auto duration = std::chrono::milliseconds(fault.milliseconds);
  if (fault.what == "disk full") {
    return absl::ResourceExhaustedError(absl::StrCat(text, ": no space left on device"));
  }
  if (fault.what == "io error") {
    return absl::UnknownError(absl::StrCat(text, ": input/output error"));
  }
  if (fault.what == "slow") std::this_thread::sleep_for(duration);
  if (fault.what == "stop") {
    stopped_until_ = (Clock::now() + duration).time_since_epoch().count();
    AwaitGo();
  }
  if (fault.what == "die after") dies_after_ = true;
  if (fault.what == "newer attempt") plan_.StartNewerAttempt();
  if (fault.what == "power cut") {
    plan_.CutPower();
    Die();
  }
  if (fault.what == "die") Die();
  return dead_ ? absl::CancelledError("this rank is dead") : absl::OkStatus();
}

OperationWatcher::Verdict RankFaults::Before(const FileOperation& operation) {
  AwaitGo();
  if (dead_ || plan_.power_is_off()) return {absl::CancelledError("this rank is dead")};
  const std::optional<FaultPlan::Fault> fault =
      plan_.Match(transport_.rank(), operation.text(), PlaceOf(operation.path));
  if (!fault) return {};
  return {Bring(*fault, operation.text()), operation.bytes / 2};
}

void RankFaults::After(const FileOperation&) {
  if (dies_after_.exchange(false)) Die();
}

bool RankFaults::BeforeSend(const std::string& text) {
  AwaitGo();
  if (dead_ || plan_.power_is_off()) return false;
  const std::optional<FaultPlan::Fault> fault = plan_.Match(transport_.rank(), text);
  if (!fault) return true;
  if (fault->what == "lose message") return false;
  return Bring(*fault, text).ok();
}

}  // namespace longspan
