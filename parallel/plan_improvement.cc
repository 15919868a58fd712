#include "parallel/plan_improvement.h"

#include <algorithm>
#include <utility>

namespace longspan {
namespace {

class Improvement {
 public:
  Improvement(PlanOutline& outline, const std::vector<int64_t>& lengths, int64_t capacity,
              const IntegerCostModel& cost, int64_t evaluations)
      : outline_(outline),
        lengths_(lengths),
        capacity_(capacity),
        cost_(cost),
        evaluations_(evaluations),
        timeline_(TimelineOf(outline, lengths, cost)) {
    best_ = Measure();
  }

  void Run(PlanningTime target) {
    for (bool improved = true; improved && best_.makespan > target && evaluations_ > 0;) {
      improved = Absorb() || Move() || Exchange();
    }
    for (auto& list : outline_.micro_batches) {
      std::erase_if(list, [](const auto& m) { return m.ring < 0 && m.sequences.empty(); });
    }
  }

 private:
  struct Score {
    PlanningTime makespan = 0, busy = 0;
    friend auto operator<=>(const Score&, const Score&) = default;
  };
  struct Spot {
    int rank;
    size_t micro_batch;
  };

  Score Measure() const {
    Score score{timeline_.makespan, 0};
    for (const auto& list : timeline_.micro_batches) {
      if (!list.empty()) score.busy += list.back().end;
    }
    return score;
  }

  // Keeps what has been changed if it is better.
  bool Accept() {
    --evaluations_;
    RunTimeline(cost_, timeline_);
    const Score score = Measure();
    if (!(score < best_)) return false;
    best_ = score;
    return true;
  }

  PlanOutline::MicroBatch& At(const Spot& spot) {
    return outline_.micro_batches[spot.rank][spot.micro_batch];
  }
  MicroBatchLoad& LoadAt(const Spot& spot) {
    return timeline_.micro_batches[spot.rank][spot.micro_batch].load;
  }
  int64_t RoomAt(const Spot& spot) { return capacity_ - LoadAt(spot).tokens; }

  void AddTo(const Spot& spot, int64_t sequence, int sign) {
    MicroBatchLoad& load = LoadAt(spot);
    load.tokens += sign * lengths_[sequence];
    load.pairs += sign * PairsOf(0, lengths_[sequence], cost_.window());
  }
  void Insert(const Spot& spot, int64_t sequence) {
    At(spot).sequences.push_back(sequence);
    AddTo(spot, sequence, 1);
  }
  // The sequence at `index` of the spot; what follows keeps its order.
  int64_t Take(const Spot& spot, size_t index) {
    auto& sequences = At(spot).sequences;
    const int64_t sequence = sequences[index];
    sequences.erase(sequences.begin() + static_cast<ptrdiff_t>(index));
    AddTo(spot, sequence, -1);
    return sequence;
  }
  void PutBack(const Spot& spot, size_t index, int64_t sequence) {
    auto& sequences = At(spot).sequences;
    sequences.insert(sequences.begin() + static_cast<ptrdiff_t>(index), sequence);
    AddTo(spot, sequence, 1);
  }

  // A micro-batch that has become empty costs nothing: it is taken out.
  void RemoveIfEmpty(const Spot& spot) {
    if (At(spot).ring >= 0 || !At(spot).sequences.empty()) return;
    const auto at = static_cast<ptrdiff_t>(spot.micro_batch);
    outline_.micro_batches[spot.rank].erase(outline_.micro_batches[spot.rank].begin() + at);
    timeline_.micro_batches[spot.rank].erase(timeline_.micro_batches[spot.rank].begin() + at);
  }
  Spot NewAt(int rank) {
    outline_.micro_batches[rank].emplace_back();
    timeline_.micro_batches[rank].emplace_back();
    return {rank, outline_.micro_batches[rank].size() - 1};
  }

  // Changes with several parts are tried on copies.
  template <typename Change>
  bool Try(const Change& change) {
    PlanOutline outline = outline_;
    PlanTimeline timeline = timeline_;
    if (change() && Accept()) return true;
    outline_ = std::move(outline);
    timeline_ = std::move(timeline);
    return false;
  }

  // A ring takes, on each of its members, the pack without a ring that fits its room best.
  bool Absorb() {
    for (size_t ring = 0; ring < outline_.rings.size() && evaluations_ > 0; ++ring) {
      const bool better = Try([&] {
        bool any = false;
        for (const int rank : outline_.rings[ring].ranks) {
          const auto& list = outline_.micro_batches[rank];
          size_t own = 0;
          while (list[own].ring != static_cast<int64_t>(ring)) ++own;
          const int64_t room = RoomAt({rank, own});
          size_t pack = list.size();
          int64_t most = 0;
          for (size_t i = 0; i < list.size(); ++i) {
            const int64_t tokens = timeline_.micro_batches[rank][i].load.tokens;
            if (list[i].ring < 0 && tokens <= room && tokens > most) pack = i, most = tokens;
          }
          if (pack == list.size()) continue;
          any = true;
          while (!At({rank, pack}).sequences.empty()) Insert({rank, own}, Take({rank, pack}, 0));
          RemoveIfEmpty({rank, pack});
        }
        return any;
      });
      if (better) return true;
    }
    return false;
  }

  // Calls each(spot, index) for whole sequences until it returns true. Ranks that end last come
  // first: only they can lower the makespan.
  template <typename Each>
  bool AnyWhole(const Each& each) {
    std::vector<int> ranks(outline_.micro_batches.size());
    for (size_t i = 0; i < ranks.size(); ++i) ranks[i] = static_cast<int>(i);
    const auto end_of = [&](int rank) {
      const auto& list = timeline_.micro_batches[rank];
      return list.empty() ? PlanningTime{0} : list.back().end;
    };
    std::vector<PlanningTime> ends;
    for (const int rank : ranks) ends.push_back(end_of(rank));
    std::stable_sort(ranks.begin(), ranks.end(), [&](int a, int b) { return ends[a] > ends[b]; });
    for (const int rank : ranks) {
      for (size_t m = 0; m < outline_.micro_batches[rank].size(); ++m) {
        for (size_t i = 0; i < outline_.micro_batches[rank][m].sequences.size(); ++i) {
          if (evaluations_ <= 0) return false;
          if (each(Spot{rank, m}, i)) return true;
        }
      }
    }
    return false;
  }

  bool Move() {
    return AnyWhole([&](const Spot& from, size_t index) {
      const int64_t length = lengths_[At(from).sequences[index]];
      for (int rank = 0; rank < static_cast<int>(outline_.micro_batches.size()); ++rank) {
        const size_t count = outline_.micro_batches[rank].size();
        for (size_t m = 0; m <= count && evaluations_ > 0; ++m) {
          if (rank == from.rank && m == from.micro_batch) continue;
          const bool fresh = m == count;
          if (!fresh && RoomAt({rank, m}) < length) continue;
          if (fresh && At(from).ring < 0 && At(from).sequences.size() == 1 && rank == from.rank) {
            continue;
          }
          const Spot to = fresh ? NewAt(rank) : Spot{rank, m};
          const int64_t sequence = Take(from, index);
          Insert(to, sequence);
          if (AcceptMoved(from)) return true;
          Take(to, At(to).sequences.size() - 1);
          PutBack(from, index, sequence);
          if (fresh) RemoveIfEmpty(to);
        }
      }
      return false;
    });
  }

  // As Accept, with the emptied micro-batch at `from` not counted.
  bool AcceptMoved(const Spot& from) {
    if (At(from).ring >= 0 || !At(from).sequences.empty()) return Accept();
    auto& list = timeline_.micro_batches[from.rank];
    const TimedMicroBatch empty = list[from.micro_batch];
    list.erase(list.begin() + static_cast<ptrdiff_t>(from.micro_batch));
    if (Accept()) {
      auto& outline = outline_.micro_batches[from.rank];
      outline.erase(outline.begin() + static_cast<ptrdiff_t>(from.micro_batch));
      return true;
    }
    list.insert(list.begin() + static_cast<ptrdiff_t>(from.micro_batch), empty);
    return false;
  }

  bool Exchange() {
    return AnyWhole([&](const Spot& a, size_t i) {
      const int64_t length = lengths_[At(a).sequences[i]];
      for (int rank = 0; rank < static_cast<int>(outline_.micro_batches.size()); ++rank) {
        for (size_t m = 0; m < outline_.micro_batches[rank].size(); ++m) {
          const Spot b{rank, m};
          if (rank == a.rank && m == a.micro_batch) continue;
          for (size_t j = 0; j < At(b).sequences.size() && evaluations_ > 0; ++j) {
            const int64_t other = lengths_[At(b).sequences[j]];
            if (other == length || RoomAt(b) + other < length || RoomAt(a) + length < other) {
              continue;
            }
            Swap(a, i, b, j);
            if (Accept()) return true;
            Swap(a, i, b, j);
          }
        }
      }
      return false;
    });
  }
  void Swap(const Spot& a, size_t i, const Spot& b, size_t j) {
    int64_t& first = At(a).sequences[i];
    int64_t& second = At(b).sequences[j];
    AddTo(a, first, -1);
    AddTo(b, second, -1);
    std::swap(first, second);
    AddTo(a, first, 1);
    AddTo(b, second, 1);
  }

  PlanOutline& outline_;
  const std::vector<int64_t>& lengths_;
  const int64_t capacity_;
  const IntegerCostModel& cost_;
  int64_t evaluations_;
  PlanTimeline timeline_;
  Score best_;
};

}  // namespace

void Improve(PlanOutline& outline, const std::vector<int64_t>& lengths, int64_t capacity,
             const IntegerCostModel& cost, PlanningTime target, int64_t evaluations) {
  Improvement(outline, lengths, capacity, cost, evaluations).Run(target);
}

}  // namespace longspan
