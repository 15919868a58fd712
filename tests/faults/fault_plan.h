// FaultPlan: the faults of one attempt, with what the seed has drawn, and their state. RankFaults
// brings them about where one rank touches files; FaultyTransport where it sends messages.
#ifndef LONGSPAN_TESTS_FAULTS_FAULT_PLAN_H_
#define LONGSPAN_TESTS_FAULTS_FAULT_PLAN_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "parallel/transport/transport.h"
#include "scenario.h"
#include "watched_files.h"

namespace longspan {

// Thread-safe.
class FaultPlan {
 public:
  struct Fault {
    std::string what;
    int64_t milliseconds = 0;
  };

  // `power_off` is called once, when the power is cut, `newer_attempt` for that fault.
  FaultPlan(const AttemptDescription& attempt, int ranks, std::mt19937_64& random,
            std::function<void()> power_off, std::function<void()> newer_attempt);

  // What happens to the operation `text` of `rank`, -1 where that is not known; `place` is where
  // its file is, in the words of FaultDescription::in, empty for messages and system calls.
  std::optional<Fault> Match(int rank, const std::string& text, const std::string& place = "");
  // By fault of the scenario: how often it was injected.
  std::vector<int64_t> injected() const;
  void CutPower();
  bool power_is_off() const { return power_is_off_; }
  void StartNewerAttempt() { newer_attempt_(); }

 private:
  struct Armed {
    FaultDescription described;
    int rank = -1;
    int64_t nth = 1, milliseconds = 0;
    int64_t matched = 0, injected = 0;
  };
  mutable std::mutex mutex_;
  std::vector<Armed> faults_;
  std::atomic<bool> power_is_off_ = false;
  const std::function<void()> power_off_, newer_attempt_;
};

// One rank between its checkpoint library and its disk. A rank that is dead touches nothing any
// more; one that is stopped waits before whatever it does next.
class RankFaults : public OperationWatcher {
 public:
  RankFaults(FaultPlan& plan, Transport& transport) : plan_(plan), transport_(transport) {}

  Verdict Before(const FileOperation& operation) override;
  void After(const FileOperation& operation) override;
  // Before a message is sent: false if it is lost.
  bool BeforeSend(const std::string& text);
  bool dead() const { return dead_ || plan_.power_is_off(); }

 private:
  absl::Status Bring(const FaultPlan::Fault& fault, const std::string& text);
  void Die();
  void AwaitGo();

  FaultPlan& plan_;
  Transport& transport_;
  std::atomic<bool> dead_ = false, dies_after_ = false;
  std::atomic<std::chrono::steady_clock::rep> stopped_until_ = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_FAULT_PLAN_H_
