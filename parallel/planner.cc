#include "parallel/planner.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/bytescale_planner.h"
#include "parallel/exact_planner.h"
#include "parallel/head_placement.h"
#include "parallel/integer_cost.h"
#include "parallel/lower_bounds.h"
#include "parallel/mesh_planners.h"
#include "parallel/skyline_planner.h"

namespace longspan {
namespace {

template <typename Policy>
std::unique_ptr<Planner> Make() {
  return std::make_unique<Policy>();
}

constexpr struct {
  const char* name;
  std::unique_ptr<Planner> (*make)();
} kPolicies[] = {
    {"skyline", &Make<SkylinePlanner>}, {"bytescale", &Make<BytescalePlanner>},
    {"naive", &Make<NaivePlanner>},     {"static", &Make<StaticPlanner>},
    {"exact", &Make<ExactPlanner>},
};

}  // namespace

absl::Status CheckRequest(const PlanRequest& request) {
  if (request.ranks_per_node < 0) {
    return absl::InvalidArgumentError(absl::StrCat("planner: ranks_per_node is ",
                                                   request.ranks_per_node,
                                                   "; it must be positive, or 0 if not known"));
  }
  if (request.ranks < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("planner: ", request.ranks, " ranks; at least one is needed"));
  }
  const int64_t capacity = request.micro_batch_tokens;
  if (capacity < 2 || capacity % 2 != 0 || capacity > kMaxBatchTokens) {
    return absl::InvalidArgumentError(absl::StrCat("planner: micro_batch_tokens is ", capacity,
                                                   "; it must be even, at least 2 and at most ",
                                                   kMaxBatchTokens));
  }
  int64_t tokens = 0;
  for (size_t i = 0; i < request.lengths.size(); ++i) {
    const int64_t length = request.lengths[i];
    if (length < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("planner: sequence ", i, " has length ", length, "; it must be positive"));
    }
    // Written without products, which could overflow for lengths from a damaged file.
    if ((length - 1) / capacity >= request.ranks) {
      int64_t needed = (length - 1) / request.ranks + 1;
      needed += needed % 2;
      return absl::InvalidArgumentError(absl::StrCat(
          "planner: sequence ", i, " has ", length, " tokens, but ", request.ranks,
          " ranks of micro_batch_tokens = ", capacity, " hold only ", request.ranks * capacity,
          " together: raise it (--set batch.micro_batch_tokens=", needed,
          "; of longspan plan: --micro-batch-tokens ", needed, ") or use at least ",
          (length - 1) / capacity + 1, " ranks"));
    }
    if (length > kMaxBatchTokens - tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("planner: more than ", kMaxBatchTokens, " tokens in one step"));
    }
    tokens += length;
  }
  return absl::OkStatus();
}

absl::StatusOr<PlanOutline> Planner::Outline(const PlanRequest& request) const {
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  const absl::StatusOr<IntegerCostModel> cost =
      IntegerCostModel::Create(request.cost, request.ranks);
  if (!cost.ok()) return cost.status();
  absl::StatusOr<PlanOutline> outline = Decide(request, *cost);
  if (outline.ok()) {
    PlaceHeads(*outline, request.lengths, request.micro_batch_tokens, request.ranks_per_node,
               *cost);
  }
  return outline;
}

absl::StatusOr<StepPlan> Planner::Plan(const PlanRequest& request) const {
  const auto begin = std::chrono::steady_clock::now();
  const absl::StatusOr<PlanOutline> outline = Outline(request);
  if (!outline.ok()) return outline.status();
  StepPlan plan = Expand(*outline, request.lengths, request.micro_batch_tokens);
  absl::StatusOr<PlanCertificate> certificate = Certify(plan, request.cost);
  if (!certificate.ok()) return certificate.status();
  plan.certificate = *certificate;
  plan.certificate.planning_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return plan;
}

absl::StatusOr<std::unique_ptr<Planner>> CreatePlanner(const std::string& policy) {
  for (const auto& known : kPolicies) {
    if (policy == known.name) return known.make();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("planner: unknown policy \"", policy,
                   "\"; there is: ", absl::StrJoin(PlannerPolicies(), ", ")));
}

std::vector<std::string> PlannerPolicies() {
  std::vector<std::string> names;
  for (const auto& known : kPolicies) names.push_back(known.name);
  return names;
}

}  // namespace longspan
