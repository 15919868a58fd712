#include "parallel/minimum_width_planner.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <numeric>
#include <queue>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "parallel/certificate.h"
#include "parallel/integer_cost.h"

namespace longspan {
namespace {

// When each rank is free, and the interval of a given width that is free first.
//
// A tournament tree over all intervals of the present width answers in O(1); taking an interval
// changes at most 2 * width - 1 others. Widths only shrink while planning, so the tree is built
// anew rarely.
class RankLine {
 public:
  explicit RankLine(int ranks) : free_at_(ranks, 0) {}

  void SetWidth(int width) {
    if (width == width_) return;
    width_ = width;
    intervals_ = static_cast<int>(free_at_.size()) - width + 1;
    leaves_ = static_cast<int>(std::bit_ceil(static_cast<unsigned>(intervals_)));
    interval_free_at_.assign(intervals_, 0);
    winners_.assign(2 * leaves_, -1);
    for (int i = 0; i < intervals_; ++i) winners_[leaves_ + i] = i;
    Refresh(0, intervals_ - 1);
  }

  // First rank of the interval that is free first, the lowest one among equals.
  int Earliest() const { return winners_[1]; }
  PlanningTime interval_free_at(int first) const { return interval_free_at_[first]; }

  // The interval that starts at rank `first` is busy until `time`.
  void Occupy(int first, PlanningTime time) {
    std::fill_n(free_at_.begin() + first, width_, time);
    Refresh(std::max(0, first - width_ + 1), std::min(intervals_ - 1, first + width_ - 1));
  }

  const std::vector<PlanningTime>& free_at() const { return free_at_; }

 private:
  // Recomputes intervals [low, high] and the games above them.
  void Refresh(int low, int high) {
    candidates_.clear();
    size_t oldest = 0;
    for (int rank = low; rank <= high + width_ - 1; ++rank) {
      while (candidates_.size() > oldest && free_at_[candidates_.back()] <= free_at_[rank]) {
        candidates_.pop_back();
      }
      candidates_.push_back(rank);
      const int first = rank - width_ + 1;
      if (first < low) continue;
      if (candidates_[oldest] < first) ++oldest;
      interval_free_at_[first] = free_at_[candidates_[oldest]];
    }
    for (low = (low + leaves_) / 2, high = (high + leaves_) / 2; low >= 1; low /= 2, high /= 2) {
      for (int node = low; node <= high; ++node) {
        const int left = winners_[2 * node], right = winners_[2 * node + 1];
        winners_[node] =
            right < 0 || (left >= 0 && interval_free_at_[left] <= interval_free_at_[right]) ? left
                                                                                            : right;
      }
    }
  }

  std::vector<PlanningTime> free_at_;  // by rank
  int width_ = 0;
  int intervals_ = 0;
  int leaves_ = 1;
  std::vector<PlanningTime> interval_free_at_;  // by first rank: the latest of its members
  std::vector<int> winners_;                    // a heap-ordered tree of first ranks, -1: none
  std::vector<int> candidates_;  // scratch: ranks that may be the latest of an interval
};

// Out over every second rank and back over the others: neighbours in the ring are at most two ranks
// apart.
std::vector<int> RingOrder(int first, int width) {
  std::vector<int> ranks;
  ranks.reserve(width);
  for (int i = 0; i < width; i += 2) ranks.push_back(first + i);
  for (int i = width - 1 - width % 2; i > 0; i -= 2) ranks.push_back(first + i);
  return ranks;
}

class Construction {
 public:
  Construction(const PlanRequest& request, const IntegerCostModel& cost)
      : request_(request), cost_(cost), line_(request.ranks), loads_(request.ranks) {
    plan_.ranks = request.ranks;
    plan_.micro_batch_tokens = request.micro_batch_tokens;
    plan_.lengths = request.lengths;
    plan_.micro_batches.resize(request.ranks);
    order_.resize(request.lengths.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int64_t a, int64_t b) { return request.lengths[a] > request.lengths[b]; });
    short_begin_ = std::partition_point(order_.begin(), order_.end(), [&](int64_t sequence) {
      return request.lengths[sequence] > request.micro_batch_tokens;
    });
  }

  StepPlan Run() {
    PlaceGroups();
    PlaceWholeSequences();
    return std::move(plan_);
  }

 private:
  struct Placement {
    int64_t sequence;
    int first;
    int width;
    PlanningTime start;
  };

  void PlaceGroups() {
    std::vector<Placement> placements;
    placements.reserve(short_begin_ - order_.begin());
    for (auto it = order_.begin(); it != short_begin_; ++it) {
      const int64_t length = request_.lengths[*it];
      const int width = static_cast<int>((length - 1) / request_.micro_batch_tokens + 1);
      line_.SetWidth(width);
      const int first = line_.Earliest();
      const PlanningTime start = line_.interval_free_at(first);
      PlanningTime duration = 0;
      for (int member = 0; member < width; ++member) {
        duration = std::max(duration, cost_.MicroBatch(MemberLoad(length, width, member)));
      }
      line_.Occupy(first, start + duration);
      placements.push_back({*it, first, width, start});
    }
    // Rings that share a rank never overlap, so equal starts (of costless work) keep the order of
    // placement.
    std::stable_sort(placements.begin(), placements.end(),
                     [](const Placement& a, const Placement& b) { return a.start < b.start; });
    plan_.groups.reserve(placements.size());
    for (const Placement& placement : placements) AddRing(placement);
  }

  MicroBatchLoad MemberLoad(int64_t length, int width, int member) const {
    MicroBatchLoad load;
    for (const TokenRange& range : ZigzagRanges(length, width, member)) {
      load.tokens += range.size();
      load.pairs += PairsOf(range.begin, range.end);
    }
    load.ring_pairs = load.pairs;
    load.ring_tokens = length;
    load.members = width;
    return load;
  }

  void AddRing(const Placement& placement) {
    const int64_t group = static_cast<int64_t>(plan_.groups.size());
    const int64_t length = request_.lengths[placement.sequence];
    plan_.groups.push_back({placement.sequence, RingOrder(placement.first, placement.width)});
    for (int member = 0; member < placement.width; ++member) {
      const int rank = plan_.groups[group].ranks[member];
      plan_.micro_batches[rank].push_back(
          {{{placement.sequence, group, ZigzagSliceRanges(length, placement.width, member)}}});
      loads_[rank].push_back(MemberLoad(length, placement.width, member));
    }
  }

  void PlaceWholeSequences() {
    using Entry = std::pair<PlanningTime, int>;  // busy until, rank
    std::vector<Entry> entries;
    for (int rank = 0; rank < plan_.ranks; ++rank) entries.push_back({line_.free_at()[rank], rank});
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> least_loaded(std::greater<>(),
                                                                                std::move(entries));
    // Of each rank: room in tokens and index of the micro-batches that have any.
    std::vector<std::set<std::pair<int64_t, size_t>>> rooms(plan_.ranks);
    for (int rank = 0; rank < plan_.ranks; ++rank) {
      for (size_t i = 0; i < loads_[rank].size(); ++i) {
        const int64_t room = request_.micro_batch_tokens - loads_[rank][i].tokens;
        if (room > 0) rooms[rank].insert({room, i});
      }
    }
    for (auto it = short_begin_; it != order_.end(); ++it) {
      const int64_t length = request_.lengths[*it];
      auto [time, rank] = least_loaded.top();
      least_loaded.pop();
      const auto fit = rooms[rank].lower_bound({length, 0});
      int64_t room = request_.micro_batch_tokens;
      size_t index = plan_.micro_batches[rank].size();
      PlanningTime before = 0;
      if (fit != rooms[rank].end()) {
        std::tie(room, index) = *fit;
        before = cost_.MicroBatch(loads_[rank][index]);
        rooms[rank].erase(fit);
      } else {
        plan_.micro_batches[rank].emplace_back();
        loads_[rank].emplace_back();
      }
      plan_.micro_batches[rank][index].slices.push_back({*it, -1, {{0, length}}});
      loads_[rank][index].tokens += length;
      loads_[rank][index].pairs += PairsOf(0, length);
      if (room > length) rooms[rank].insert({room - length, index});
      least_loaded.push({time + cost_.MicroBatch(loads_[rank][index]) - before, rank});
    }
  }

  const PlanRequest& request_;
  const IntegerCostModel& cost_;
  StepPlan plan_;
  RankLine line_;
  std::vector<std::vector<MicroBatchLoad>> loads_;  // as plan_.micro_batches
  std::vector<int64_t> order_;                      // sequences, longest first
  std::vector<int64_t>::iterator short_begin_;      // of those that fit one micro-batch
};

}  // namespace

absl::StatusOr<StepPlan> MinimumWidthPlanner::Plan(const PlanRequest& request) const {
  const auto begin = std::chrono::steady_clock::now();
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  const absl::StatusOr<IntegerCostModel> cost = IntegerCostModel::Create(request.cost);
  if (!cost.ok()) return cost.status();
  StepPlan plan = Construction(request, *cost).Run();
  absl::StatusOr<PlanCertificate> certificate = Certify(plan, request.cost);
  if (!certificate.ok()) return certificate.status();
  plan.certificate = *certificate;
  plan.certificate.planning_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return plan;
}

}  // namespace longspan
