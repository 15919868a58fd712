#include "parallel/certificate.h"

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "parallel/integer_cost.h"
#include "parallel/lower_bounds.h"
#include "parallel/plan_timeline.h"

namespace longspan {

LowerBounds LowerBoundsOf(const std::vector<int64_t>& lengths, int ranks,
                          int64_t micro_batch_tokens, const IntegerCostModel& cost) {
  int64_t tokens = 0, longest = 0;
  PlanningTime area = 0;
  std::vector<int64_t> wide;
  for (const int64_t length : lengths) {
    tokens += length;
    longest = std::max(longest, length);
    const int width =
        length <= micro_batch_tokens ? 1 : static_cast<int>((length - 1) / micro_batch_tokens + 1);
    area += cost.SequenceArea(length, width);
    if (2 * int64_t{width} > ranks) wide.push_back(length);
  }
  LowerBounds bounds;
  area += cost.micro_batch() * ((tokens + micro_batch_tokens - 1) / micro_batch_tokens);
  bounds.area = cost.OnAllRanks(area);
  const auto best = [&](int64_t length) {
    const int width = static_cast<int>((length - 1) / micro_batch_tokens + 1);
    return cost.BestSequence(length, width, ranks);
  };
  // A longer sequence takes longer on any width and has fewer widths to choose from: the longest
  // one decides.
  if (longest > 0) bounds.longest = cost.OnFastestRank(best(longest) + cost.micro_batch());
  std::sort(wide.begin(), wide.end());
  PlanningTime sum = 0, last = 0;
  for (size_t i = 0; i < wide.size(); ++i) {
    if (i == 0 || wide[i] != wide[i - 1]) last = best(wide[i]);
    sum += last;
  }
  bounds.wide = cost.OnFastestRank(sum);
  return bounds;
}

PlanCertificate CertificateOf(const LowerBounds& bounds, PlanningTime makespan) {
  PlanCertificate certificate;
  const PlanningTime bound = bounds.greatest();
  certificate.makespan_seconds = IntegerCostModel::Seconds(makespan);
  certificate.lower_bound_seconds = IntegerCostModel::Seconds(bound);
  certificate.area_seconds = IntegerCostModel::Seconds(bounds.area);
  certificate.longest_seconds = IntegerCostModel::Seconds(bounds.longest);
  certificate.wide_seconds = IntegerCostModel::Seconds(bounds.wide);
  certificate.gap =
      bound == 0 ? 0 : static_cast<double>(makespan - bound) / static_cast<double>(bound);
  return certificate;
}

absl::StatusOr<PlanCertificate> Certify(const StepPlan& plan, const CostModel& cost) {
  absl::StatusOr<IntegerCostModel> integer_cost = IntegerCostModel::Create(cost, plan.ranks);
  if (!integer_cost.ok()) return integer_cost.status();
  int64_t tokens = 0;
  for (const int64_t length : plan.lengths) {
    if (length > kMaxBatchTokens - tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("plan: more than ", kMaxBatchTokens, " tokens in one step"));
    }
    tokens += length;
  }
  return CertificateOf(
      LowerBoundsOf(plan.lengths, plan.ranks, plan.micro_batch_tokens, *integer_cost),
      TimelineOf(plan, *integer_cost).makespan);
}

const char* BindingBound(const PlanCertificate& certificate) {
  if (certificate.area_seconds >= certificate.lower_bound_seconds) return "area";
  return certificate.longest_seconds >= certificate.lower_bound_seconds ? "longest" : "wide";
}

RingTraffic RingTrafficOf(const StepPlan& plan, int ranks_per_node) {
  RingTraffic traffic;
  for (const SequenceGroup& group : plan.groups) {
    const size_t members = group.ranks.size();
    const double d = static_cast<double>(members);
    const double in_ring = d / group.head_parallel;
    const double tokens =
        1.5 * (in_ring - 1) / 2 * static_cast<double>(plan.lengths[group.sequence]);
    traffic.tokens += tokens;
    if (ranks_per_node == 0) continue;
    int64_t crossings = 0;
    for (size_t i = 0; i < members; ++i) {
      crossings += group.ranks[i] / ranks_per_node !=
                   group.ranks[(i + group.head_parallel) % members] / ranks_per_node;
    }
    // Every hop of the ring carries about the same.
    traffic.cross_node_tokens += tokens * static_cast<double>(crossings) / d;
  }
  return traffic;
}

}  // namespace longspan
