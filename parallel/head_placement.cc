#include "parallel/head_placement.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

namespace longspan {
namespace {

// `ranks` ascending; blocks of `width` of them, out and back.
std::vector<int> InBlocks(const std::vector<int>& ranks, int width) {
  std::vector<int> ordered;
  ordered.reserve(ranks.size());
  for (const int block : IntervalRing(0, static_cast<int>(ranks.size()) / width)) {
    const auto begin = ranks.begin() + static_cast<ptrdiff_t>(block) * width;
    ordered.insert(ordered.end(), begin, begin + width);
  }
  return ordered;
}

// A ring's micro-batches, one by member.
struct RingLoads {
  std::vector<MicroBatchLoad> loads;  // in ring order
  std::vector<int> ranks;
};

PlanningTime DurationBy(int width, const RingLoads& ring, const IntegerCostModel& cost) {
  PlanningTime duration = 0;
  for (size_t i = 0; i < ring.loads.size(); ++i) {
    MicroBatchLoad load = ring.loads[i];
    load.head_parallel = width;
    duration = std::max(duration, cost.OnRank(cost.MicroBatch(load), ring.ranks[i]));
  }
  return duration;
}

// Of the `widths`, ascending.
int BestWidth(const std::vector<int>& widths, const RingLoads& ring, const IntegerCostModel& cost) {
  if (cost.widest_heads()) return widths.back();
  int best = widths.front();
  PlanningTime least = DurationBy(best, ring, cost);
  for (const int width : widths) {
    const PlanningTime duration = DurationBy(width, ring, cost);
    if (duration < least) {
      least = duration;
      best = width;
    }
  }
  return best;
}

std::vector<RingLoads> LoadsOf(const PlanOutline& outline, const PlanTimeline& timeline) {
  std::vector<RingLoads> rings(outline.rings.size());
  for (size_t rank = 0; rank < timeline.micro_batches.size(); ++rank) {
    for (const TimedMicroBatch& timed : timeline.micro_batches[rank]) {
      if (timed.ring < 0) continue;
      rings[timed.ring].loads.push_back(timed.load);
      rings[timed.ring].ranks.push_back(static_cast<int>(rank));
    }
  }
  return rings;
}

// Whether members keep to the capacity when the ring has another order.
bool Fits(const PlanOutline::Ring& ring, const std::vector<int>& ordered, const RingLoads& loads,
          const std::vector<int64_t>& lengths, int64_t capacity) {
  const int members = static_cast<int>(ordered.size());
  const auto share = [&](int member) {
    int64_t tokens = 0;
    for (const int64_t sequence : ring.sequences) {
      tokens += ShareLoad(lengths[sequence], members, member, /*window=*/0).tokens;
    }
    return tokens;
  };
  std::map<int, int64_t> tokens;  // by rank
  for (size_t i = 0; i < loads.ranks.size(); ++i) tokens[loads.ranks[i]] = loads.loads[i].tokens;
  for (int member = 0; member < members; ++member) {
    tokens[ring.ranks[member]] -= share(member);
    tokens[ordered[member]] += share(member);
  }
  return std::all_of(tokens.begin(), tokens.end(),
                     [&](const auto& entry) { return entry.second <= capacity; });
}

// The widths of which every node has a multiple.
std::vector<int> WidthsOnNodes(const std::vector<int>& widths, const std::vector<int>& ranks,
                               int ranks_per_node) {
  std::map<int, int> members;  // by node
  for (const int rank : ranks) ++members[ranks_per_node == 0 ? 0 : rank / ranks_per_node];
  std::vector<int> possible;
  for (const int width : widths) {
    if (std::all_of(members.begin(), members.end(),
                    [&](const auto& node) { return node.second % width == 0; })) {
      possible.push_back(width);
    }
  }
  return possible;
}

}  // namespace

void ChooseHeads(PlanOutline& outline, const std::vector<int64_t>& lengths,
                 const IntegerCostModel& cost) {
  if (cost.head_widths().size() == 1 || outline.rings.empty()) return;
  const std::vector<RingLoads> loads = LoadsOf(outline, TimelineOf(outline, lengths, cost));
  for (size_t i = 0; i < outline.rings.size(); ++i) {
    PlanOutline::Ring& ring = outline.rings[i];
    ring.head_parallel =
        BestWidth(cost.HeadWidths(static_cast<int>(ring.ranks.size())), loads[i], cost);
  }
}

void PlaceHeads(PlanOutline& outline, const std::vector<int64_t>& lengths, int64_t capacity,
                int ranks_per_node, const IntegerCostModel& cost) {
  if (cost.head_widths().size() == 1 || outline.rings.empty()) return;
  const std::vector<RingLoads> loads = LoadsOf(outline, TimelineOf(outline, lengths, cost));
  for (size_t i = 0; i < outline.rings.size(); ++i) {
    PlanOutline::Ring& ring = outline.rings[i];
    std::vector<int> ranks = ring.ranks;
    std::sort(ranks.begin(), ranks.end());
    const int before = std::exchange(ring.head_parallel, 1);
    const int width =
        BestWidth(WidthsOnNodes(cost.head_widths(), ranks, ranks_per_node), loads[i], cost);
    if (width == 1 && before == 1) continue;
    std::vector<int> ordered = InBlocks(ranks, width);
    if (!Fits(ring, ordered, loads[i], lengths, capacity)) continue;
    ring.ranks = std::move(ordered);
    ring.head_parallel = width;
  }
}

}  // namespace longspan
