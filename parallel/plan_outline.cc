#include "parallel/plan_outline.h"

#include <utility>

namespace longspan {
namespace {

// Member index of every rank in its rings, as the lists of micro-batches meet them: rings increase
// on each rank, so one pass over the rings in order gives each rank's in order.
std::vector<std::vector<int>> MembersByRank(const PlanOutline& outline) {
  std::vector<std::vector<int>> members(outline.micro_batches.size());
  for (const PlanOutline::Ring& ring : outline.rings) {
    for (size_t member = 0; member < ring.ranks.size(); ++member) {
      members[ring.ranks[member]].push_back(static_cast<int>(member));
    }
  }
  return members;
}

}  // namespace

std::vector<int> IntervalRing(int first, int width) {
  std::vector<int> ranks;
  ranks.reserve(width);
  for (int i = 0; i < width; i += 2) ranks.push_back(first + i);
  for (int i = width - 1 - width % 2; i > 0; i -= 2) ranks.push_back(first + i);
  return ranks;
}

MicroBatchLoad ShareLoad(int64_t length, int members, int member, int64_t window) {
  MicroBatchLoad load;
  for (const TokenRange& range : ZigzagRanges(length, members, member)) {
    load.tokens += range.size();
    load.pairs += PairsOf(range.begin, range.end, window);
  }
  load.ring_pairs = load.pairs;
  load.ring_tokens = RingTokens(length, members, window);
  load.members = members;
  return load;
}

StepPlan Expand(const PlanOutline& outline, const std::vector<int64_t>& lengths,
                int64_t micro_batch_tokens) {
  StepPlan plan;
  plan.ranks = static_cast<int>(outline.micro_batches.size());
  plan.micro_batch_tokens = micro_batch_tokens;
  plan.lengths = lengths;
  std::vector<int64_t> first_group;
  first_group.reserve(outline.rings.size());
  for (const PlanOutline::Ring& ring : outline.rings) {
    first_group.push_back(static_cast<int64_t>(plan.groups.size()));
    for (const int64_t sequence : ring.sequences) {
      plan.groups.push_back({sequence, ring.ranks, ring.head_parallel});
    }
  }
  const std::vector<std::vector<int>> members = MembersByRank(outline);
  plan.micro_batches.resize(plan.ranks);
  for (int rank = 0; rank < plan.ranks; ++rank) {
    size_t rings_met = 0;
    plan.micro_batches[rank].reserve(outline.micro_batches[rank].size());
    for (const PlanOutline::MicroBatch& from : outline.micro_batches[rank]) {
      MicroBatch& to = plan.micro_batches[rank].emplace_back();
      if (from.ring >= 0) {
        const PlanOutline::Ring& ring = outline.rings[from.ring];
        const int member = members[rank][rings_met++];
        to.slices.reserve(ring.sequences.size() + from.sequences.size());
        for (size_t i = 0; i < ring.sequences.size(); ++i) {
          const int64_t sequence = ring.sequences[i];
          to.slices.push_back(
              {sequence, first_group[from.ring] + static_cast<int64_t>(i),
               ZigzagSliceRanges(lengths[sequence], static_cast<int>(ring.ranks.size()), member)});
        }
      } else {
        to.slices.reserve(from.sequences.size());
      }
      for (const int64_t sequence : from.sequences) {
        SequenceSlice& slice = to.slices.emplace_back();
        slice.sequence = sequence;
        slice.ranges.push_back({0, lengths[sequence]});
      }
    }
  }
  return plan;
}

PlanTimeline TimelineOf(const PlanOutline& outline, const std::vector<int64_t>& lengths,
                        const IntegerCostModel& cost) {
  PlanTimeline timeline;
  timeline.micro_batches.resize(outline.micro_batches.size());
  const std::vector<std::vector<int>> members = MembersByRank(outline);
  for (size_t rank = 0; rank < outline.micro_batches.size(); ++rank) {
    size_t rings_met = 0;
    timeline.micro_batches[rank].reserve(outline.micro_batches[rank].size());
    for (const PlanOutline::MicroBatch& micro_batch : outline.micro_batches[rank]) {
      TimedMicroBatch& timed = timeline.micro_batches[rank].emplace_back();
      timed.ring = micro_batch.ring;
      if (micro_batch.ring >= 0) {
        const PlanOutline::Ring& ring = outline.rings[micro_batch.ring];
        const int member = members[rank][rings_met++];
        const int width = static_cast<int>(ring.ranks.size());
        timed.load.members = width;
        timed.load.head_parallel = ring.head_parallel;
        for (const int64_t sequence : ring.sequences) {
          const MicroBatchLoad share = ShareLoad(lengths[sequence], width, member, cost.window());
          timed.load.tokens += share.tokens;
          timed.load.pairs += share.pairs;
          timed.load.ring_pairs += share.pairs;
          timed.load.ring_tokens += share.ring_tokens;
        }
      }
      for (const int64_t sequence : micro_batch.sequences) {
        timed.load.tokens += lengths[sequence];
        timed.load.pairs += PairsOf(0, lengths[sequence], cost.window());
      }
    }
  }
  RunTimeline(cost, timeline);
  return timeline;
}

}  // namespace longspan
