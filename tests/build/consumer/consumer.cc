// Plans a step and looks for checkpoints: each installed library is linked and does something that
// can fail.
#include <cstdio>
#include <memory>

#include "checkpoint/checkpoint.h"
#include "parallel/plan.h"
#include "parallel/planner.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  longspan::PlanRequest request;
  request.lengths = {300, 5000, 512};
  request.ranks = 2;
  request.micro_batch_tokens = 4096;
  request.cost = longspan::AnalyticCostModel(3'000'000, 4, 256, 256, 1e11, 1e9);
  const auto planner = longspan::CreatePlanner(longspan::PlannerPolicies().front());
  if (!planner.ok()) return 3;
  const auto plan = (*planner)->Plan(request);
  if (!plan.ok() || !longspan::Validate(*plan).ok()) return 4;
  // 5000 tokens fit no micro-batch of 4096: that sequence must have a group.
  if (plan->total_tokens() != 5812 || plan->groups.empty()) return 5;

  const auto checkpoints = longspan::ListCheckpoints(longspan::PosixFileSystem(), argv[1]);
  if (!checkpoints.ok() || !checkpoints->empty()) return 6;
  std::printf("planned %zu micro-batches on rank 0\n", plan->micro_batches[0].size());
  return 0;
}
