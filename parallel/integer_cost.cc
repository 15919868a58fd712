#include "parallel/integer_cost.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

constexpr double kUnitsPerSecond = 1e9 * (1 << 20);

PlanningTime DivideRoundingUp(PlanningTime value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

}  // namespace

PairCount PairsOf(int64_t begin, int64_t end, int64_t window) {
  // Queries from position `window` - 1 on see that many keys.
  const PairCount full = window > 0 ? std::clamp(window - 1, begin, end) : end;
  const PairCount first = begin, last = end;
  return (full * (full + 1) - first * (first + 1)) / 2 + (last - full) * window;
}

int64_t RingTokens(int64_t length, int members, int64_t window) {
  if (window == 0 || members == 1) return length;
  const PairCount reached = PairCount{2} * (window - 1) * members / (members - 1);
  return reached < length ? static_cast<int64_t>(reached) : length;
}

absl::StatusOr<IntegerCostModel> IntegerCostModel::Create(const CostModel& cost, int ranks) {
  IntegerCostModel model;
  model.ranks_ = ranks;
  if (cost.attention_window < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cost model: attention_window is ", cost.attention_window, "; it must not be negative"));
  }
  model.window_ = cost.attention_window;
  const struct {
    const char* name;
    double seconds;
    int64_t* units;
  } coefficients[] = {
      {"attention_seconds_per_pair", cost.attention_seconds_per_pair, &model.attention_},
      {"linear_seconds_per_token", cost.linear_seconds_per_token, &model.linear_},
      {"ring_seconds_per_token", cost.ring_seconds_per_token, &model.ring_},
      {"ring_step_seconds", cost.ring_step_seconds, &model.ring_step_},
      {"micro_batch_seconds", cost.micro_batch_seconds, &model.micro_batch_},
  };
  bool all_zero = true;
  for (const auto& coefficient : coefficients) {
    // Written so that NaN fails too.
    const double most =
        coefficient.units == &model.attention_ ? kMaxPairSeconds : kMaxCoefficientSeconds;
    if (!(coefficient.seconds >= 0 && coefficient.seconds <= most)) {
      return absl::InvalidArgumentError(
          absl::StrCat("cost model: ", coefficient.name, " is ", coefficient.seconds,
                       "; it must lie between 0 and ", most, " seconds"));
    }
    *coefficient.units = std::llround(coefficient.seconds * kUnitsPerSecond);
    all_zero = all_zero && *coefficient.units == 0;
  }
  if (all_zero) model.linear_ = 1;
  const HeadParallelism& heads = cost.heads;
  for (const auto& [name, value] :
       {std::pair("kv_heads", heads.kv_heads), std::pair("queries_per_kv", heads.queries_per_kv),
        std::pair("most", heads.most)}) {
    if (value < 1 || value > kMaxHeads) {
      return absl::InvalidArgumentError(absl::StrCat("cost model: heads.", name, " is ", value,
                                                     "; it must lie between 1 and ", kMaxHeads));
    }
  }
  if (cost.attention_window == 0) model.head_widths_ = heads.Widths();
  model.widest_heads_ = heads.widest;
  model.exchange_ = PlanningTime{model.ring_} * (6 + 5 * heads.queries_per_kv) / 6;

  if (cost.rank_speeds.empty()) return model;
  if (cost.rank_speeds.size() != static_cast<size_t>(ranks)) {
    return absl::InvalidArgumentError(absl::StrCat("cost model: rank_speeds has ",
                                                   cost.rank_speeds.size(), " speeds for ", ranks,
                                                   " ranks; leave it out where all are alike"));
  }
  bool equal = true;
  for (size_t rank = 0; rank < cost.rank_speeds.size(); ++rank) {
    const double speed = cost.rank_speeds[rank];
    if (!(speed >= kMinRankSpeed && speed <= kMaxRankSpeed)) {
      return absl::InvalidArgumentError(absl::StrCat("cost model: rank_speeds[", rank, "] is ",
                                                     speed, "; it must lie between ", kMinRankSpeed,
                                                     " and ", kMaxRankSpeed));
    }
    model.speeds_.push_back(std::llround(speed * kSpeedUnit));
    equal = equal && model.speeds_.back() == kSpeedUnit;
  }
  if (equal) model.speeds_.clear();
  return model;
}

PlanningTime IntegerCostModel::Divide(PlanningTime work, int64_t speed, bool round_up) {
  // work * kSpeedUnit / speed, without the product.
  const PlanningTime quotient = work / speed, remainder = work % speed;
  return quotient * kSpeedUnit + (remainder * kSpeedUnit + (round_up ? speed - 1 : 0)) / speed;
}

PlanningTime IntegerCostModel::OnFastestRank(PlanningTime work) const {
  if (speeds_.empty()) return work;
  return Divide(work, *std::max_element(speeds_.begin(), speeds_.end()), /*round_up=*/false);
}

PlanningTime IntegerCostModel::OnAllRanks(PlanningTime work) const {
  if (speeds_.empty()) return work / ranks_;
  return Divide(work, std::accumulate(speeds_.begin(), speeds_.end(), int64_t{0}),
                /*round_up=*/false);
}

IntegerCostModel IntegerCostModel::Reordered(const std::vector<int>& line) const {
  IntegerCostModel model = *this;
  for (size_t i = 0; i < model.speeds_.size(); ++i) model.speeds_[i] = speeds_[line[i]];
  return model;
}

PlanningTime IntegerCostModel::MicroBatch(const MicroBatchLoad& load) const {
  const int64_t d = load.members, h = load.head_parallel, m = d / h;
  PlanningTime attention = attention_ * load.pairs;
  int64_t steps = m - 1;
  if (d > 1) {
    const PlanningTime transfer = PlanningTime{ring_} * load.ring_tokens * (m - 1);
    PlanningTime ring = DivideRoundingUp(transfer + attention_ * load.ring_pairs * h, d);
    if (h > 1) {
      ring = std::max(ring, attention_ * load.ring_pairs) +
             DivideRoundingUp(exchange_ * load.ring_tokens * (h - 1), h * d);
      steps += kHeadExchangeSteps;
    }
    attention = std::max(attention, ring);
  }
  return micro_batch_ + PlanningTime{linear_} * load.tokens + attention +
         PlanningTime{ring_step_} * steps;
}

PlanningTime IntegerCostModel::Sequence(int64_t length, int members) const {
  const int64_t d = members;
  const PlanningTime compute = attention_ * PairsOf(0, length, window_);
  const PlanningTime tokens = RingTokens(length, members, window_);
  std::optional<PlanningTime> least;
  for (const int64_t h : head_widths_) {
    if (d % h != 0) continue;
    const int64_t m = d / h;
    PlanningTime time = std::max(compute / d, (ring_ * tokens * (m - 1) + compute / m) / d) +
                        PlanningTime{ring_step_} * (m - 1);
    if (h > 1) {
      time +=
          exchange_ * tokens * (h - 1) / (h * d) + PlanningTime{ring_step_} * kHeadExchangeSteps;
    }
    least = std::min(least.value_or(time), time);
  }
  return PlanningTime{linear_} * length / d + *least;
}

PlanningTime IntegerCostModel::BestSequence(int64_t length, int least_members,
                                            int most_members) const {
  PlanningTime best = Sequence(length, least_members);
  for (int d = least_members + 1; d <= most_members; ++d) {
    // From here on the latency of the ring alone is more than the best.
    if (PlanningTime{ring_step_} * ((d - 1) / head_widths_.back()) >= best) break;
    best = std::min(best, Sequence(length, d));
  }
  return best;
}

PlanningTime IntegerCostModel::SequenceArea(int64_t length, int members) const {
  return PlanningTime{linear_} * length + attention_ * PairsOf(0, length, window_) +
         PlanningTime{ring_step_} * members * (members - 1) / head_widths_.back();
}

std::vector<int> IntegerCostModel::HeadWidths(int members) const {
  std::vector<int> widths;
  for (const int width : head_widths_) {
    if (members % width != 0) continue;
    if (widest_heads_) widths.clear();
    widths.push_back(width);
  }
  return widths;
}

IntegerCostModel IntegerCostModel::WithoutHeads() const {
  IntegerCostModel model = *this;
  model.head_widths_ = {1};
  return model;
}

double IntegerCostModel::Seconds(PlanningTime time) {
  return static_cast<double>(time) / kUnitsPerSecond;
}

}  // namespace longspan
