// PlanAhead: the plans of coming steps, made in a thread of their own from lengths alone, so that
// planning never shows in the step time.
#ifndef LONGSPAN_RUNTIME_TRAIN_PLAN_AHEAD_H_
#define LONGSPAN_RUNTIME_TRAIN_PLAN_AHEAD_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/trace.h"
#include "parallel/planner.h"
#include "runtime/data/dataset.h"
#include "runtime/train/cost_refit.h"

namespace longspan {

struct PlannedStep {
  std::vector<SequenceRef> sequences;  // the global batch, in its order
  StepPlan plan;                       // valid
  uint64_t plan_hash = 0;
  int64_t cost_version = 0;   // of the model that it was planned with
  DataCursor after;           // behind this step's batch
  double waited_seconds = 0;  // that Next waited for it
};

// Every rank makes the same plans. One thread calls Next and ChangeCost; `data` and `planner`
// outlive this.
class PlanAhead {
 public:
  // Steps that are planned before they are asked for.
  static constexpr int kDepth = 4;

  // Batches of `batch_tokens` from `cursor` on, for steps [first_step, end_step). `request` has all
  // but the lengths; its cost holds until the first of `costs` that is in effect. `trace`: where
  // planning is recorded, or nullptr.
  PlanAhead(const Dataset& data, const Planner& planner, PlanRequest request, int64_t batch_tokens,
            DataCursor cursor, int64_t first_step, int64_t end_step,
            const std::vector<CostVersion>& costs = {},
            std::shared_ptr<TraceRecorder> trace = nullptr);
  ~PlanAhead();
  PlanAhead(const PlanAhead&) = delete;
  PlanAhead& operator=(const PlanAhead&) = delete;

  // The next step's plan, or why there is none. Called once for each step.
  absl::StatusOr<PlannedStep> Next();

  // Steps from cost.from_step on are planned with `cost`. It must be more than kDepth steps after
  // the last one that Next gave, so that on no rank a plan for it has been made.
  void ChangeCost(const CostVersion& cost);

 private:
  void Run();
  absl::StatusOr<PlannedStep> Plan(int64_t step);

  const Dataset& data_;
  const Planner& planner_;
  const int64_t batch_tokens_;
  const int64_t end_step_;
  const std::shared_ptr<TraceRecorder> trace_;
  // Of the thread alone.
  PlanRequest request_;
  DataCursor cursor_;
  int64_t cost_version_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t asked_step_;  // that Next gives next
  int64_t next_step_;   // to be planned
  std::deque<absl::StatusOr<PlannedStep>> ready_;
  std::deque<CostVersion> costs_;  // to come
  bool end_ = false;

  std::thread thread_;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_PLAN_AHEAD_H_
