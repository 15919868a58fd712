#include "parallel/certificate.h"

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "parallel/integer_cost.h"

namespace longspan {
namespace {

MicroBatchLoad LoadOf(const StepPlan& plan, const MicroBatch& micro_batch) {
  MicroBatchLoad load;
  for (const SequenceSlice& slice : micro_batch.slices) {
    PairCount pairs = 0;
    for (const TokenRange& range : slice.ranges) pairs += PairsOf(range.begin, range.end);
    load.tokens += slice.tokens();
    load.pairs += pairs;
    if (slice.group < 0) continue;
    load.ring_pairs += pairs;
    load.ring_tokens += plan.lengths[slice.sequence];
    load.members = static_cast<int>(plan.groups[slice.group].ranks.size());
  }
  return load;
}

// A ring is known by the lowest of its groups; -1: no ring.
int64_t RingNumber(const MicroBatch& micro_batch) {
  int64_t number = -1;
  for (const SequenceSlice& slice : micro_batch.slices) {
    if (slice.group >= 0 && (number < 0 || slice.group < number)) number = slice.group;
  }
  return number;
}

// Runs the lists in order. Rings are taken by number: every rank meets them so.
PlanningTime Makespan(const StepPlan& plan, const IntegerCostModel& cost) {
  struct Part {
    int rank;
    size_t micro_batch;
  };
  std::vector<std::vector<Part>> rings(plan.groups.size());
  std::vector<std::vector<PlanningTime>> costs(plan.ranks);
  for (int rank = 0; rank < plan.ranks; ++rank) {
    const std::vector<MicroBatch>& list = plan.micro_batches[rank];
    for (size_t i = 0; i < list.size(); ++i) {
      costs[rank].push_back(cost.MicroBatch(LoadOf(plan, list[i])));
      if (const int64_t ring = RingNumber(list[i]); ring >= 0) rings[ring].push_back({rank, i});
    }
  }
  std::vector<PlanningTime> now(plan.ranks, 0);
  std::vector<size_t> next(plan.ranks, 0);
  const auto run_until = [&](int rank, size_t end) {
    for (; next[rank] < end; ++next[rank]) now[rank] += costs[rank][next[rank]];
  };
  for (const std::vector<Part>& ring : rings) {
    PlanningTime start = 0, duration = 0;
    for (const Part& part : ring) {
      run_until(part.rank, part.micro_batch);
      start = std::max(start, now[part.rank]);
      duration = std::max(duration, costs[part.rank][part.micro_batch]);
    }
    for (const Part& part : ring) {
      now[part.rank] = start + duration;
      next[part.rank] = part.micro_batch + 1;
    }
  }
  PlanningTime makespan = 0;
  for (int rank = 0; rank < plan.ranks; ++rank) {
    run_until(rank, costs[rank].size());
    makespan = std::max(makespan, now[rank]);
  }
  return makespan;
}

}  // namespace

absl::StatusOr<PlanCertificate> Certify(const StepPlan& plan, const CostModel& cost) {
  absl::StatusOr<IntegerCostModel> integer_cost = IntegerCostModel::Create(cost);
  if (!integer_cost.ok()) return integer_cost.status();
  const int64_t capacity = plan.micro_batch_tokens;
  std::vector<int64_t> lengths = plan.lengths;
  std::sort(lengths.begin(), lengths.end(), std::greater<>());

  int64_t tokens = 0;
  PlanningTime area = 0, wide = 0, best = 0;
  int64_t best_length = 0;
  for (const int64_t length : lengths) {
    if (length > kMaxBatchTokens - tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("plan: more than ", kMaxBatchTokens, " tokens in one step"));
    }
    tokens += length;
    const int width = static_cast<int>((length + capacity - 1) / capacity);
    area += integer_cost->SequenceArea(length, width);
    if (2 * int64_t{width} <= plan.ranks) continue;
    if (length != best_length) {
      best = integer_cost->BestSequence(length, width, plan.ranks);
      best_length = length;
    }
    wide += best;
  }
  area += integer_cost->micro_batch() * ((tokens + capacity - 1) / capacity);
  area /= plan.ranks;
  // A longer sequence takes longer on any width and has fewer widths to choose from: the longest
  // one decides.
  PlanningTime longest = 0;
  if (!lengths.empty()) {
    const int width = static_cast<int>((lengths.front() + capacity - 1) / capacity);
    longest = integer_cost->BestSequence(lengths.front(), width, plan.ranks) +
              integer_cost->micro_batch();
  }

  const PlanningTime makespan = Makespan(plan, *integer_cost);
  const PlanningTime bound = std::max({area, longest, wide});
  PlanCertificate certificate;
  certificate.makespan_seconds = IntegerCostModel::Seconds(makespan);
  certificate.lower_bound_seconds = IntegerCostModel::Seconds(bound);
  certificate.area_seconds = IntegerCostModel::Seconds(area);
  certificate.longest_seconds = IntegerCostModel::Seconds(longest);
  certificate.wide_seconds = IntegerCostModel::Seconds(wide);
  certificate.gap =
      bound == 0 ? 0 : static_cast<double>(makespan - bound) / static_cast<double>(bound);
  return certificate;
}

}  // namespace longspan
