#include "launch/simulation_sweep.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/integer_cost.h"
#include "parallel/length_mix.h"
#include "parallel/pipeline_planner.h"
#include "parallel/planner.h"

namespace longspan {
namespace {

constexpr char kPipelinePolicy[] = "pp-balance";

// What a planner reckons with: the micro-batches of one stage.
CostModel StageCost(CostModel cost, int stages) {
  cost.attention_seconds_per_pair /= stages;
  cost.linear_seconds_per_token /= stages;
  cost.ring_seconds_per_token /= stages;
  cost.ring_step_seconds /= stages;
  cost.micro_batch_seconds /= stages;
  return cost;
}

absl::StatusOr<std::unique_ptr<Planner>> PlannerOf(const SimulationCase& simulated) {
  if (simulated.policy == kPipelinePolicy) {
    return std::make_unique<PipelinePlanner>(simulated.simulation.stages);
  }
  return CreatePlanner(simulated.policy);
}

SimulationResult RunBatch(const SimulationCase& simulated, uint64_t batch, uint64_t seed) {
  SimulationResult result;
  const absl::StatusOr<std::vector<int64_t>> lengths =
      DrawLengths({simulated.mix, simulated.tokens, simulated.context, seed + batch});
  result.status = lengths.status();
  if (!lengths.ok()) return result;
  const absl::StatusOr<std::unique_ptr<Planner>> planner = PlannerOf(simulated);
  result.status = planner.status();
  if (!planner.ok()) return result;
  const absl::StatusOr<PlanOutline> outline =
      (*planner)->Outline({*lengths, simulated.ranks, simulated.micro_batch_tokens,
                           StageCost(simulated.simulation.cost, simulated.simulation.stages)});
  result.status = outline.status();
  if (!outline.ok()) return result;
  SimulationRequest request = simulated.simulation;
  request.jitter.seed += batch;
  const absl::StatusOr<StepSimulation> step = SimulateStep(*outline, *lengths, request);
  result.status = step.status();
  if (!step.ok()) return result;
  result.step_seconds = step->step_seconds;
  RankTimes& sum = result.shares;
  for (const RankTimes& times : step->ranks) {
    sum.busy += times.busy;
    sum.group_wait += times.group_wait;
    sum.exposed_transfer += times.exposed_transfer;
    sum.stage_wait += times.stage_wait;
    sum.idle += times.idle;
    sum.update += times.update;
  }
  return result;
}

// `results`: batches of one case.
SimulationResult MeanOf(const SimulationCase& simulated, const SimulationResult* results,
                        int batches) {
  SimulationResult mean;
  double seconds = 0;
  for (int batch = 0; batch < batches; ++batch) {
    if (!results[batch].status.ok()) return {results[batch].status};
    seconds += results[batch].step_seconds;
  }
  if (seconds == 0) return mean;
  const auto share = [&](double RankTimes::*part) {
    double sum = 0;
    for (int batch = 0; batch < batches; ++batch) sum += results[batch].shares.*part;
    mean.shares.*part = sum / (seconds * simulated.ranks);
  };
  share(&RankTimes::busy);
  share(&RankTimes::group_wait);
  share(&RankTimes::exposed_transfer);
  share(&RankTimes::stage_wait);
  share(&RankTimes::idle);
  share(&RankTimes::update);
  mean.step_seconds = seconds / batches;
  mean.tokens_per_second = static_cast<double>(simulated.tokens) / mean.step_seconds;
  return mean;
}

}  // namespace

std::vector<std::string> SimulationPolicies() {
  std::vector<std::string> policies = PlannerPolicies();
  policies.emplace_back(kPipelinePolicy);
  return policies;
}

absl::Status CheckCase(const SimulationCase& simulated) {
  const std::vector<std::string> policies = SimulationPolicies();
  if (std::find(policies.begin(), policies.end(), simulated.policy) == policies.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("simulate: unknown policy \"", simulated.policy,
                     "\"; there is: ", absl::StrJoin(policies, ", ")));
  }
  // One token: what is left to refuse is the request.
  if (const auto lengths = DrawLengths({simulated.mix, 1, simulated.context}); !lengths.ok()) {
    return lengths.status();
  }
  if (simulated.tokens < 1 || simulated.tokens > kMaxBatchTokens) {
    return absl::InvalidArgumentError(absl::StrCat("simulate: ", simulated.tokens,
                                                   " tokens a batch; there must be from 1 to ",
                                                   kMaxBatchTokens));
  }
  const PlanRequest request{{1}, simulated.ranks, simulated.micro_batch_tokens};
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  PlanOutline empty;
  empty.micro_batches.resize(simulated.ranks);
  return SimulateStep(empty, {}, simulated.simulation).status();
}

std::vector<SimulationResult> RunSimulations(const std::vector<SimulationCase>& cases, int batches,
                                             uint64_t seed,
                                             const std::function<void(size_t, size_t)>& progress) {
  const size_t jobs = cases.size() * batches;
  std::vector<SimulationResult> results(jobs);
  std::atomic<size_t> next{0};
  std::mutex mutex;
  size_t done = 0;
  const auto work = [&] {
    // The last cases are the largest, as a rule: first come, first served from the end.
    for (size_t taken = next++; taken < jobs; taken = next++) {
      const size_t job = jobs - 1 - taken;
      results[job] = RunBatch(cases[job / batches], job % batches, seed);
      const std::lock_guard<std::mutex> lock(mutex);
      progress(++done, jobs);
    }
  };
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < std::min(cores, jobs); ++i) threads.emplace_back(work);
    work();
  }
  std::vector<SimulationResult> means;
  means.reserve(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    means.push_back(MeanOf(cases[i], &results[i * batches], batches));
  }
  return means;
}

}  // namespace longspan
