#include "parallel/pipeline_planner.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "parallel/sorted_batch.h"

namespace longspan {
namespace {

// What one ring or one pack asks of its pipelines.
struct Unit {
  std::vector<int64_t> sequences;
  int width = 1;
  PlanningTime work = 0;  // on each of them, at speed 1
};

std::vector<Unit> Units(const SortedBatch& batch, const PlanRequest& request,
                        const IntegerCostModel& cost) {
  std::vector<Unit> units;
  for (int64_t place = 0; place < batch.first_short(); ++place) {
    const int width = batch.minimum_width(place);
    units.push_back({{batch.sequence(place)}, width, RingWork(cost, batch.length(place), width)});
  }
  // Longest first into the fullest pack with room.
  std::vector<MicroBatchLoad> loads;
  const size_t first_pack = units.size();
  std::set<std::pair<int64_t, size_t>> rooms;  // tokens left, pack
  for (int64_t place = batch.first_short(); place < batch.size(); ++place) {
    const int64_t length = batch.length(place);
    auto room = rooms.lower_bound({length, 0});
    if (room == rooms.end()) {
      room = rooms.insert({request.micro_batch_tokens, loads.size()}).first;
      units.emplace_back();
      loads.emplace_back();
    }
    const auto [left, pack] = *room;
    rooms.erase(room);
    if (left > length) rooms.insert({left - length, pack});
    units[first_pack + pack].sequences.push_back(batch.sequence(place));
    loads[pack].tokens += length;
    loads[pack].pairs += PairsOf(0, length, cost.window());
  }
  for (size_t i = 0; i < loads.size(); ++i) units[first_pack + i].work = cost.MicroBatch(loads[i]);
  std::stable_sort(units.begin() + static_cast<int64_t>(first_pack), units.end(),
                   [](const Unit& a, const Unit& b) { return a.work > b.work; });
  return units;
}

// Fills one pipeline after the other up to a common end.
class Filling {
 public:
  Filling(const IntegerCostModel& cost, int ranks, int stages, PlanningTime end)
      : cost_(cost), ranks_(ranks), stages_(stages), end_(end) {}

  // The pipelines of each unit; nothing if they do not fit.
  std::optional<std::vector<std::vector<int>>> Place(const std::vector<Unit>& units) {
    std::vector<std::vector<int>> places;
    places.reserve(units.size());
    for (const Unit& unit : units) {
      std::vector<int> ranks = unit.width > 1 ? PlaceRing(unit) : PlacePack(unit);
      if (ranks.empty()) return std::nullopt;
      places.push_back(std::move(ranks));
    }
    return places;
  }

 private:
  // Its first and longest micro-batch makes the pipeline's fill and drain.
  void Open(PlanningTime work) {
    Insert({cost_.OnRank(work, open_) * (stages_ - 1), open_});
    ++open_;
  }
  void Insert(std::pair<PlanningTime, int> pipeline) {
    by_load_.insert(std::upper_bound(by_load_.begin(), by_load_.end(), pipeline), pipeline);
  }

  // Of the open pipelines those that wait the least in all, and the furthest of these. A new one is
  // opened where the wait would be more than an eighth of the ring's own time.
  std::vector<int> PlaceRing(const Unit& unit) {
    const size_t width = unit.width;
    for (;; Open(unit.work)) {
      const bool full = open_ == ranks_;
      size_t best = by_load_.size();
      PlanningTime least_wait = 0, held = 0;
      for (size_t i = 0; i < by_load_.size(); ++i) {
        held += by_load_[i].first;
        if (i + 1 < width) continue;
        const size_t first = i + 1 - width;
        const PlanningTime begin = by_load_[i].first;
        if (begin + unit.work > end_) break;
        const PlanningTime wait = begin * unit.width - held;
        if (best == by_load_.size() || wait <= least_wait) best = first, least_wait = wait;
        held -= by_load_[first].first;
      }
      if (best < by_load_.size() && (full || least_wait * 8 <= unit.work * unit.width)) {
        std::vector<int> ranks;
        PlanningTime begin = 0, after = 0;
        for (size_t i = best; i < best + width; ++i) {
          ranks.push_back(by_load_[i].second);
          begin = std::max(begin, by_load_[i].first);
        }
        for (const int rank : ranks) after = std::max(after, begin + cost_.OnRank(unit.work, rank));
        if (after > end_) return {};
        for (size_t i = best; i < best + width; ++i) by_load_[i].first = after;
        std::sort(by_load_.begin(), by_load_.end());
        std::sort(ranks.begin(), ranks.end());
        return ranks;
      }
      if (full) return {};
    }
  }

  // The furthest pipeline that still has time for it, else a new one.
  std::vector<int> PlacePack(const Unit& unit) {
    for (;; Open(unit.work)) {
      for (size_t i = by_load_.size(); i-- > 0;) {
        const int rank = by_load_[i].second;
        const PlanningTime after = by_load_[i].first + cost_.OnRank(unit.work, rank);
        if (after > end_) continue;
        by_load_.erase(by_load_.begin() + static_cast<int64_t>(i));
        Insert({after, rank});
        return {rank};
      }
      if (open_ == ranks_) return {};
    }
  }

  const IntegerCostModel& cost_;
  const int ranks_, stages_;
  const PlanningTime end_;
  int open_ = 0;                                       // pipelines below have work
  std::vector<std::pair<PlanningTime, int>> by_load_;  // busy until, pipeline; sorted
};

}  // namespace

absl::StatusOr<PlanOutline> PipelinePlanner::Decide(const PlanRequest& request,
                                                    const IntegerCostModel& cost) const {
  const SortedBatch batch(request);
  const std::vector<Unit> units = Units(batch, request, cost);
  PlanningTime work = 0;
  for (const Unit& unit : units) work += unit.work * unit.width;
  const auto place = [&](PlanningTime end) {
    return Filling(cost, request.ranks, stages_, end).Place(units);
  };
  // Everything fits once there is time for all work on one pipeline, so an end is found.
  std::optional<std::vector<std::vector<int>>> places;
  PlanningTime end = cost.OnAllRanks(work), too_early = 0;
  while (!(places = place(end)).has_value()) {
    too_early = end;
    end += end / 8 + 1;
  }
  for (int i = 0; i < 6 && too_early > 0; ++i) {
    const PlanningTime between = too_early + (end - too_early) / 2;
    if (auto found = place(between); found.has_value()) {
      places = std::move(found);
      end = between;
    } else {
      too_early = between;
    }
  }
  PlanOutline outline;
  outline.micro_batches.resize(request.ranks);
  for (size_t i = 0; i < units.size(); ++i) {
    std::vector<int>& ranks = (*places)[i];
    if (units[i].width == 1) {
      outline.micro_batches[ranks[0]].push_back({-1, units[i].sequences});
      continue;
    }
    const int64_t ring = static_cast<int64_t>(outline.rings.size());
    for (const int rank : ranks) outline.micro_batches[rank].push_back({ring, {}});
    outline.rings.push_back({{units[i].sequences[0]}, std::move(ranks)});
  }
  return outline;
}

}  // namespace longspan
