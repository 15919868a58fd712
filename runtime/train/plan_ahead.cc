#include "runtime/train/plan_ahead.h"

#include <chrono>
#include <utility>

#include "kernels/device/check.h"

namespace longspan {

PlanAhead::PlanAhead(const Dataset& data, const Planner& planner, PlanRequest request,
                     int64_t batch_tokens, DataCursor cursor, int64_t first_step, int64_t end_step,
                     const std::vector<CostVersion>& costs, std::shared_ptr<TraceRecorder> trace)
    : data_(data),
      planner_(planner),
      batch_tokens_(batch_tokens),
      end_step_(end_step),
      trace_(std::move(trace)),
      request_(std::move(request)),
      cursor_(std::move(cursor)),
      asked_step_(first_step),
      next_step_(first_step),
      costs_(costs.begin(), costs.end()),
      thread_([this] { Run(); }) {}

PlanAhead::~PlanAhead() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

absl::StatusOr<PlannedStep> PlanAhead::Next() {
  const auto begin = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  LONGSPAN_CHECK(asked_step_ < end_step_, "a step after the last");
  ++asked_step_;
  changed_.wait(lock, [this] { return !ready_.empty(); });
  absl::StatusOr<PlannedStep> next = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  if (next.ok()) {
    next->waited_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  return next;
}

void PlanAhead::ChangeCost(const CostVersion& cost) {
  const std::lock_guard lock(mutex_);
  LONGSPAN_CHECK(cost.from_step >= next_step_, "plans with the old cost have been made");
  costs_.push_back(cost);
}

void PlanAhead::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock,
                  [this] { return end_ || (ready_.size() < kDepth && next_step_ < end_step_); });
    if (end_) return;
    while (!costs_.empty() && costs_.front().from_step <= next_step_) {
      request_.cost = CostOf(costs_.front().units, request_.cost);
      cost_version_ = costs_.front().version;
      costs_.pop_front();
    }
    const int64_t step = next_step_++;
    lock.unlock();
    absl::StatusOr<PlannedStep> planned = Plan(step);
    lock.lock();
    ready_.push_back(std::move(planned));
    changed_.notify_all();
  }
}

absl::StatusOr<PlannedStep> PlanAhead::Plan(int64_t step) {
  // A step is named by the number that it has when it is done.
  const HostSpan span(
      trace_.get(), TraceRecorder::kPlannerRow,
      {.name = "plan", .kind = TraceKind::kPlan, .step = static_cast<int32_t>(step + 1)});
  PlannedStep planned;
  planned.sequences = data_.NextBatch(cursor_, batch_tokens_);
  planned.after = cursor_;
  planned.cost_version = cost_version_;
  request_.lengths.clear();
  for (const SequenceRef& sequence : planned.sequences) {
    request_.lengths.push_back(sequence.length);
  }
  absl::StatusOr<StepPlan> plan = planner_.Plan(request_);
  if (!plan.ok()) return plan.status();
  if (absl::Status status = Validate(*plan); !status.ok()) return status;
  planned.plan = *std::move(plan);
  planned.plan_hash = HashOf(planned.plan);
  return planned;
}

}  // namespace longspan
