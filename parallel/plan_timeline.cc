#include "parallel/plan_timeline.h"

#include <algorithm>

namespace longspan {

MicroBatchLoad LoadOf(const StepPlan& plan, const MicroBatch& micro_batch, int64_t window) {
  MicroBatchLoad load;
  for (const SequenceSlice& slice : micro_batch.slices) {
    PairCount pairs = 0;
    int64_t tokens = 0;
    for (const TokenRange& range : slice.ranges) {
      pairs += PairsOf(range.begin, range.end, window);
      tokens += range.size();
    }
    load.tokens += tokens;
    load.pairs += pairs;
    if (slice.group < 0) continue;
    load.ring_pairs += pairs;
    load.members = static_cast<int>(plan.groups[slice.group].ranks.size());
    load.head_parallel = plan.groups[slice.group].head_parallel;
    load.ring_tokens += RingTokens(plan.lengths[slice.sequence], load.members, window);
  }
  return load;
}

int64_t RingNumber(const MicroBatch& micro_batch) {
  int64_t number = -1;
  for (const SequenceSlice& slice : micro_batch.slices) {
    if (slice.group >= 0 && (number < 0 || slice.group < number)) number = slice.group;
  }
  return number;
}

void RunTimeline(const IntegerCostModel& cost, PlanTimeline& timeline) {
  // The members of each ring, by counting sort.
  std::vector<int64_t> ring_ends;
  for (const auto& list : timeline.micro_batches) {
    for (const TimedMicroBatch& micro_batch : list) {
      if (micro_batch.ring < 0) continue;
      if (ring_ends.size() <= static_cast<size_t>(micro_batch.ring)) {
        ring_ends.resize(micro_batch.ring + 1, 0);
      }
      ++ring_ends[micro_batch.ring];
    }
  }
  int64_t members = 0;
  for (int64_t& end : ring_ends) {
    members += end;
    end = members - end;  // the begin, until it is filled
  }
  std::vector<int> ranks(members);
  const int rank_count = static_cast<int>(timeline.micro_batches.size());
  for (int rank = 0; rank < rank_count; ++rank) {
    for (TimedMicroBatch& micro_batch : timeline.micro_batches[rank]) {
      micro_batch.cost = cost.OnRank(cost.MicroBatch(micro_batch.load), rank);
      if (micro_batch.ring >= 0) ranks[ring_ends[micro_batch.ring]++] = rank;
    }
  }

  std::vector<PlanningTime> now(rank_count, 0);
  std::vector<size_t> next(rank_count, 0);
  // Runs what has no ring, up to the rank's next ring or its end.
  const auto run_alone = [&](int rank) {
    auto& list = timeline.micro_batches[rank];
    for (; next[rank] < list.size() && list[next[rank]].ring < 0; ++next[rank]) {
      TimedMicroBatch& micro_batch = list[next[rank]];
      micro_batch.start = now[rank];
      micro_batch.end = now[rank] += micro_batch.cost;
    }
  };
  int64_t begin = 0;
  for (const int64_t end : ring_ends) {
    PlanningTime start = 0, duration = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int rank = ranks[i];
      run_alone(rank);
      start = std::max(start, now[rank]);
      duration = std::max(duration, timeline.micro_batches[rank][next[rank]].cost);
    }
    for (int64_t i = begin; i < end; ++i) {
      const int rank = ranks[i];
      TimedMicroBatch& micro_batch = timeline.micro_batches[rank][next[rank]++];
      micro_batch.start = start;
      micro_batch.end = now[rank] = start + duration;
    }
    begin = end;
  }
  timeline.makespan = 0;
  for (int rank = 0; rank < rank_count; ++rank) {
    run_alone(rank);
    timeline.makespan = std::max(timeline.makespan, now[rank]);
  }
}

PlanTimeline TimelineOf(const StepPlan& plan, const IntegerCostModel& cost) {
  PlanTimeline timeline;
  timeline.micro_batches.resize(plan.ranks);
  std::vector<int64_t> dense(plan.groups.size(), -1);
  for (int rank = 0; rank < plan.ranks; ++rank) {
    auto& list = timeline.micro_batches[rank];
    list.reserve(plan.micro_batches[rank].size());
    for (const MicroBatch& micro_batch : plan.micro_batches[rank]) {
      TimedMicroBatch& timed = list.emplace_back();
      timed.load = LoadOf(plan, micro_batch, cost.window());
      timed.ring = RingNumber(micro_batch);
      if (timed.ring >= 0) dense[timed.ring] = 0;
    }
  }
  int64_t rings = 0;
  for (int64_t& number : dense) {
    if (number == 0) number = rings++;
  }
  for (auto& list : timeline.micro_batches) {
    for (TimedMicroBatch& timed : list) {
      if (timed.ring >= 0) timed.ring = dense[timed.ring];
    }
  }
  RunTimeline(cost, timeline);
  return timeline;
}

}  // namespace longspan
