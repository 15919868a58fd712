#include "parallel/skyline_draft.h"

#include <algorithm>
#include <numeric>

#include "parallel/whole_sequence_fill.h"

namespace longspan {
namespace {

// Segments that one draft may look at for intervals that wait.
constexpr int64_t kMostScanned = 1 << 16;

PlanningTime OnInterval(const IntegerCostModel& cost, PlanningTime work, int first, int width) {
  if (cost.equal_speeds()) return work;
  PlanningTime slowest = 0;
  for (int rank = first; rank < first + width; ++rank) {
    slowest = std::max(slowest, cost.OnRank(work, rank));
  }
  return slowest;
}

// What the sequence takes on the interval that begins at `first`.
PlanningTime WorkAt(const IntegerCostModel& cost, const PlacedSequence& sequence, int first,
                    int ranks_per_node) {
  const int last = first + sequence.width - 1;
  if (cost.head_widths().size() == 1 || ranks_per_node == 0 ||
      first / ranks_per_node == last / ranks_per_node) {
    return sequence.work;
  }
  // Ranks before the first border, and behind it; the nodes between are whole.
  const int before = ranks_per_node - first % ranks_per_node;
  const int behind = sequence.width - before;
  std::vector<int> widths;
  for (const int width : cost.head_widths()) {
    if (before % width != 0 || behind % width != 0) continue;
    if (behind > ranks_per_node && ranks_per_node % width != 0) continue;
    if (cost.widest_heads()) widths.clear();
    widths.push_back(width);
  }
  if (widths == cost.HeadWidths(sequence.width)) return sequence.work;
  return RingWork(cost, sequence.length, sequence.width, widths);
}

// Puts whole sequences, the longest that fit, into the waits for rings, and marks them as used.
class WaitFill {
 public:
  WaitFill(const SortedBatch& batch, const IntegerCostModel& cost, int64_t capacity,
           const std::vector<int64_t>& wholes, SkylineDraft& draft)
      : batch_(batch),
        cost_(cost),
        capacity_(capacity),
        wholes_(wholes),
        draft_(draft),
        next_(wholes.size() + 1) {
    std::iota(next_.begin(), next_.end(), 0);
  }

  void Fill(const SkylineDraft::Wait& wait) {
    for (int rank = wait.first; rank < wait.first + wait.ranks; ++rank) FillRank(rank, wait);
  }

  bool used(size_t i) const { return next_[i] != i; }

 private:
  void FillRank(int rank, const SkylineDraft::Wait& wait) {
    PlanningTime left = wait.time;
    int64_t room = 0;
    int micro_batch = -1;
    while (true) {
      // Lengths fall, so times do: the first that fits is the longest.
      const auto fits = [&](int64_t place) {
        const int64_t length = batch_.length(place);
        const PlanningTime work =
            cost_.SequenceArea(length, 1) + (length <= room ? 0 : cost_.micro_batch());
        return cost_.OnRank(work, rank) <= left;
      };
      const size_t first = std::partition_point(wholes_.begin(), wholes_.end(),
                                                [&](int64_t place) { return !fits(place); }) -
                           wholes_.begin();
      const size_t chosen = Next(first);
      if (chosen == wholes_.size()) return;
      const int64_t length = batch_.length(wholes_[chosen]);
      PlanningTime work = cost_.SequenceArea(length, 1);
      if (length > room) {
        room = capacity_;
        ++micro_batch;
        work += cost_.micro_batch();
      }
      room -= length;
      left -= cost_.OnRank(work, rank);
      draft_.wholes.push_back({wholes_[chosen], rank, wait.ring, micro_batch});
      next_[chosen] = chosen + 1;
    }
  }

  // The first from `i` on that is not used.
  size_t Next(size_t i) {
    size_t end = i;
    while (next_[end] != end) end = next_[end];
    for (; next_[i] != i;) {
      const size_t after = next_[i];
      next_[i] = end;
      i = after;
    }
    return end;
  }

  const SortedBatch& batch_;
  const IntegerCostModel& cost_;
  const int64_t capacity_;
  const std::vector<int64_t>& wholes_;
  SkylineDraft& draft_;
  std::vector<size_t> next_;  // i: not used; else where to look on
};

}  // namespace

std::optional<SkylineDraft> DraftRings(const IntegerCostModel& cost, int ranks, int ranks_per_node,
                                       const std::vector<PlacedSequence>& sequences,
                                       std::optional<PlanningTime> limit, Skyline::Choice choice,
                                       int64_t& scanned) {
  SkylineDraft draft;
  draft.rings.reserve(sequences.size());
  Skyline line(ranks, choice);
  const int64_t most_scanned = scanned + kMostScanned;
  std::vector<Skyline::Wait> waits;
  for (const PlacedSequence& sequence : sequences) {
    if (sequence.width == 1 && draft.rings_end.empty()) draft.rings_end = line.FreeAt();
    Skyline::Interval chosen =
        line.WithoutWaiting(sequence.width, limit.value_or(0) - sequence.work);
    const auto end_in = [&](const Skyline::Interval& interval) {
      return interval.free_at + OnInterval(cost,
                                           WorkAt(cost, sequence, interval.first, ranks_per_node),
                                           interval.first, sequence.width);
    };
    PlanningTime end = chosen.first < 0 ? 0 : end_in(chosen);
    const bool late = limit.has_value() ? end > *limit : chosen.free_at > 0;
    if (chosen.first < 0 || (late && scanned < most_scanned)) {
      scanned += line.segments();
      const Skyline::Interval earliest = line.Earliest(sequence.width);
      if (chosen.first < 0 || end_in(earliest) < end) {
        chosen = earliest;
        end = end_in(earliest);
      }
    }
    if (limit.has_value() && end > *limit) return std::nullopt;
    waits.clear();
    line.Occupy(chosen.first, sequence.width, chosen.free_at, end, &waits);
    for (const Skyline::Wait& wait : waits) {
      const PlanningTime time = chosen.free_at - wait.from;
      draft.waits.push_back(
          {wait.first, wait.ranks, time, static_cast<int64_t>(draft.rings.size())});
      draft.waiting += time * wait.ranks;
    }
    if (sequence.width == 1) {
      draft.singles.push_back({sequence.place, chosen.first});
      continue;
    }
    draft.rings.push_back({sequence.place, chosen.first, sequence.width, chosen.free_at});
  }
  draft.free_at = line.FreeAt();
  if (draft.rings_end.empty()) draft.rings_end = draft.free_at;
  for (const PlanningTime free_at : draft.free_at) {
    draft.makespan = std::max(draft.makespan, free_at);
    draft.busy += free_at;
  }
  return draft;
}

void AddWholes(const SortedBatch& batch, const IntegerCostModel& cost, int64_t capacity,
               const std::vector<int64_t>& wholes, SkylineDraft& draft) {
  draft.wholes.reserve(wholes.size() + draft.singles.size());
  WaitFill wait_fill(batch, cost, capacity, wholes, draft);
  std::stable_sort(draft.waits.begin(), draft.waits.end(),
                   [](const auto& a, const auto& b) { return a.time > b.time; });
  for (const SkylineDraft::Wait& wait : draft.waits) wait_fill.Fill(wait);

  WholeSequenceFill fill(cost, capacity, draft.rings_end);
  for (const SkylineDraft::Single& single : draft.singles) {
    const int micro_batch = fill.AddTo(single.rank, batch.length(single.place));
    draft.wholes.push_back({single.place, single.rank, -1, micro_batch});
  }
  for (size_t i = 0; i < wholes.size(); ++i) {
    if (wait_fill.used(i)) continue;
    const auto [rank, micro_batch] = fill.Add(batch.length(wholes[i]));
    draft.wholes.push_back({wholes[i], rank, -1, micro_batch});
  }
  draft.makespan = fill.latest();
  draft.busy = 0;
  for (size_t rank = 0; rank < draft.free_at.size(); ++rank) {
    draft.free_at[rank] = fill.free_at(static_cast<int>(rank));
    draft.busy += draft.free_at[rank];
  }
}

PlanOutline OutlineOf(const SkylineDraft& draft, const SortedBatch& batch, int ranks) {
  PlanOutline outline;
  outline.micro_batches.resize(ranks);
  std::vector<int64_t> order(draft.rings.size());
  std::iota(order.begin(), order.end(), 0);
  // Rings that share a rank never overlap, so equal starts (of costless work) keep their order.
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return draft.rings[a].start < draft.rings[b].start;
  });
  // What fills waits, by ring.
  std::vector<int64_t> fillers_end(draft.rings.size() + 1, 0);
  for (const SkylineDraft::Whole& whole : draft.wholes) {
    if (whole.before_ring >= 0) ++fillers_end[whole.before_ring];
  }
  std::partial_sum(fillers_end.begin(), fillers_end.end(), fillers_end.begin());
  std::vector<int64_t> fillers(fillers_end.back());
  for (int64_t i = static_cast<int64_t>(draft.wholes.size()) - 1; i >= 0; --i) {
    const int64_t ring = draft.wholes[i].before_ring;
    if (ring >= 0) fillers[--fillers_end[ring]] = i;
  }
  const auto add = [&](const SkylineDraft::Whole& whole, size_t first) {
    auto& list = outline.micro_batches[whole.rank];
    const size_t index = first + whole.micro_batch;
    if (list.size() == index) list.emplace_back();
    list[index].sequences.push_back(batch.sequence(whole.place));
  };

  outline.rings.reserve(draft.rings.size());
  for (const int64_t index : order) {
    const SkylineDraft::Ring& ring = draft.rings[index];
    int filled_rank = -1;
    size_t first = 0;
    for (int64_t i = fillers_end[index]; i < fillers_end[index + 1]; ++i) {
      const SkylineDraft::Whole& whole = draft.wholes[fillers[i]];
      // A rank's fillers of one ring follow each other.
      if (whole.rank != filled_rank) {
        filled_rank = whole.rank;
        first = outline.micro_batches[filled_rank].size();
      }
      add(whole, first);
    }
    const int64_t number = static_cast<int64_t>(outline.rings.size());
    for (int rank = ring.first; rank < ring.first + ring.width; ++rank) {
      outline.micro_batches[rank].push_back({number, {}});
    }
    outline.rings.push_back({{batch.sequence(ring.place)}, IntervalRing(ring.first, ring.width)});
  }
  std::vector<size_t> first_whole(ranks);
  for (int rank = 0; rank < ranks; ++rank) first_whole[rank] = outline.micro_batches[rank].size();
  for (const SkylineDraft::Whole& whole : draft.wholes) {
    if (whole.before_ring < 0) add(whole, first_whole[whole.rank]);
  }
  return outline;
}

}  // namespace longspan
