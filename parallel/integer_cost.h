// IntegerCostModel: the cost formula in whole numbers, so that planners on different machines
// decide alike.
//
// Times are multiples of 2^-20 ns. Divisions of a micro-batch's time round up, those of a
// sequence's best time round down, so that no rounding puts a makespan under its lower bound. Pure
// values.
#ifndef LONGSPAN_PARALLEL_INTEGER_COST_H_
#define LONGSPAN_PARALLEL_INTEGER_COST_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/cost_model.h"

namespace longspan {

__extension__ using PlanningTime = __int128;  // in units of 2^-20 ns
__extension__ using PairCount = __int128;     // (query, key) pairs with key <= query

// Most tokens a global batch may have. With coefficients of at most these every product and sum
// below stays under 2^112 (pairs < 2^71, at 2^40 units; tokens at 2^54), 2^118 on the slowest rank.
inline constexpr int64_t kMaxBatchTokens = int64_t{1} << 36;
inline constexpr double kMaxCoefficientSeconds = 16;
inline constexpr double kMaxPairSeconds = 1e-3;
inline constexpr double kMinRankSpeed = 1.0 / 64, kMaxRankSpeed = 64;

inline constexpr int kMaxHeads = 1 << 16;

// What a micro-batch costs time for.
struct MicroBatchLoad {
  int64_t tokens = 0;
  PairCount pairs = 0;
  PairCount ring_pairs = 0;  // those of the ring's slices
  int64_t ring_tokens = 0;   // RingTokens of the ring's sequences, added up
  int members = 1;           // of the ring; 1 without one
  int head_parallel = 1;     // so many of them split heads
};

// Pairs of the queries at positions [begin, end) of a causal sequence; 0: no window.
PairCount PairsOf(int64_t begin, int64_t end, int64_t window);

// Tokens of a shared sequence that a ring's transfer counts: all of them without a window. With
// one, a member receives at most 2 * (window - 1), so as many as make (members - 1) / members of
// them that.
int64_t RingTokens(int64_t length, int members, int64_t window);

class IntegerCostModel {
 public:
  // InvalidArgument unless the window is at least 0, every coefficient is in [0,
  // kMaxCoefficientSeconds], that of a pair at most kMaxPairSeconds, and rank_speeds is empty or
  // has `ranks` speeds in [kMinRankSpeed, kMaxRankSpeed]. A model of zeros counts tokens alone.
  static absl::StatusOr<IntegerCostModel> Create(const CostModel& cost, int ranks);

  // On a rank of speed 1, as all that follow.
  PlanningTime MicroBatch(const MicroBatchLoad& load) const;
  // T(length, members) of CostModel::SequenceSeconds, the least over the widths of head
  // parallelism.
  PlanningTime Sequence(int64_t length, int members) const;
  // The least T(length, d) over d in [least_members, most_members].
  PlanningTime BestSequence(int64_t length, int least_members, int most_members) const;
  // linear * s + attention * pairs + ring_step * d * (d - 1) / h, with the largest width h of head
  // parallelism: rank time that the sequence takes at least.
  PlanningTime SequenceArea(int64_t length, int members) const;
  PlanningTime micro_batch() const { return micro_batch_; }
  // Widths of head parallelism, ascending; the first is 1.
  const std::vector<int>& head_widths() const { return head_widths_; }
  // Those that `members` ranks may take: all that divide the number, or the largest of these.
  std::vector<int> HeadWidths(int members) const;
  bool widest_heads() const { return widest_heads_; }
  // The same with ring alone.
  IntegerCostModel WithoutHeads() const;

  // `work` of a rank of speed 1, on rank `rank`; rounded up.
  PlanningTime OnRank(PlanningTime work, int rank) const {
    return speeds_.empty() ? work : Divide(work, speeds_[rank], /*round_up=*/true);
  }
  // The same on the fastest rank; rounded down, for bounds.
  PlanningTime OnFastestRank(PlanningTime work) const;
  // `work` shared by all ranks in proportion to their speeds; rounded down, for bounds.
  PlanningTime OnAllRanks(PlanningTime work) const;
  // The same with the speed of rank line[i] for rank i; `line` is a permutation of the ranks.
  IntegerCostModel Reordered(const std::vector<int>& line) const;
  int64_t window() const { return window_; }
  bool equal_speeds() const { return speeds_.empty(); }
  // In units of 2^-20.
  int64_t speed(int rank) const { return speeds_.empty() ? kSpeedUnit : speeds_[rank]; }

  static double Seconds(PlanningTime time);

 private:
  static constexpr int64_t kSpeedUnit = int64_t{1} << 20;
  static PlanningTime Divide(PlanningTime work, int64_t speed, bool round_up);

  int ranks_ = 1;
  int64_t window_ = 0;
  std::vector<int64_t> speeds_;  // by rank; empty: all kSpeedUnit
  int64_t attention_ = 0, linear_ = 0, ring_ = 0, ring_step_ = 0, micro_batch_ = 0;
  PlanningTime exchange_ = 0;  // for a token whose heads all go elsewhere
  std::vector<int> head_widths_ = {1};
  bool widest_heads_ = false;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_INTEGER_COST_H_
