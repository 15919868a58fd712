#include "parallel/bytescale_planner.h"

#include <algorithm>
#include <queue>
#include <utility>
#include <vector>

#include "parallel/sorted_batch.h"
#include "parallel/whole_sequence_fill.h"

namespace longspan {

absl::StatusOr<PlanOutline> BytescalePlanner::Decide(const PlanRequest& request,
                                                     const IntegerCostModel& cost) const {
  const SortedBatch batch(request);
  PlanOutline outline;
  outline.micro_batches.resize(request.ranks);
  using Entry = std::pair<PlanningTime, int>;  // free at, rank
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ranks;
  for (int rank = 0; rank < request.ranks; ++rank) ranks.push({0, rank});
  struct Placement {
    PlanningTime start;
    int64_t sequence;
    std::vector<int> ranks;
  };
  std::vector<Placement> placements;
  for (int64_t place = 0; place < batch.first_short(); ++place) {
    const int width = batch.minimum_width(place);
    Placement placement{0, batch.sequence(place), {}};
    placement.ranks.reserve(width);
    PlanningTime work = RingWork(cost, batch.length(place), width), duration = 0;
    for (int i = 0; i < width; ++i) {
      const auto [free_at, rank] = ranks.top();
      ranks.pop();
      placement.start = std::max(placement.start, free_at);
      duration = std::max(duration, cost.OnRank(work, rank));
      placement.ranks.push_back(rank);
    }
    std::sort(placement.ranks.begin(), placement.ranks.end());
    for (const int rank : placement.ranks) ranks.push({placement.start + duration, rank});
    placements.push_back(std::move(placement));
  }
  // Rings that share a rank never overlap, so equal starts (of costless work) keep their order.
  std::stable_sort(placements.begin(), placements.end(),
                   [](const Placement& a, const Placement& b) { return a.start < b.start; });
  for (Placement& placement : placements) {
    const int64_t ring = static_cast<int64_t>(outline.rings.size());
    for (const int rank : placement.ranks) outline.micro_batches[rank].push_back({ring, {}});
    outline.rings.push_back({{placement.sequence}, std::move(placement.ranks)});
  }

  std::vector<PlanningTime> free_at(request.ranks);
  for (; !ranks.empty(); ranks.pop()) free_at[ranks.top().second] = ranks.top().first;
  std::vector<size_t> first_whole;
  for (const auto& list : outline.micro_batches) first_whole.push_back(list.size());
  WholeSequenceFill fill(cost, request.micro_batch_tokens, std::move(free_at));
  for (int64_t place = batch.first_short(); place < batch.size(); ++place) {
    const auto [rank, micro_batch] = fill.Add(batch.length(place));
    auto& list = outline.micro_batches[rank];
    const size_t index = first_whole[rank] + micro_batch;
    if (list.size() == index) list.emplace_back();
    list[index].sequences.push_back(batch.sequence(place));
  }
  return outline;
}

}  // namespace longspan
