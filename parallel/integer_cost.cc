#include "parallel/integer_cost.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

constexpr double kUnitsPerSecond = 1e9 * (1 << 20);

PlanningTime DivideRoundingUp(PlanningTime value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

}  // namespace

PairCount PairsOf(int64_t begin, int64_t end) {
  const PairCount first = begin, last = end;
  return (last * (last + 1) - first * (first + 1)) / 2;
}

absl::StatusOr<IntegerCostModel> IntegerCostModel::Create(const CostModel& cost) {
  IntegerCostModel model;
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
    if (!(coefficient.seconds >= 0 && coefficient.seconds <= kMaxCoefficientSeconds)) {
      return absl::InvalidArgumentError(
          absl::StrCat("cost model: ", coefficient.name, " is ", coefficient.seconds,
                       "; it must lie between 0 and ", kMaxCoefficientSeconds, " seconds"));
    }
    *coefficient.units = std::llround(coefficient.seconds * kUnitsPerSecond);
    all_zero = all_zero && *coefficient.units == 0;
  }
  if (all_zero) model.linear_ = 1;
  return model;
}

PlanningTime IntegerCostModel::MicroBatch(const MicroBatchLoad& load) const {
  const int64_t d = load.members;
  PlanningTime attention = attention_ * load.pairs;
  if (d > 1) {
    const PlanningTime transfer = PlanningTime{ring_} * load.ring_tokens * (d - 1);
    attention = std::max(attention, DivideRoundingUp(transfer + attention_ * load.ring_pairs, d));
  }
  return micro_batch_ + PlanningTime{linear_} * load.tokens + attention +
         PlanningTime{ring_step_} * (d - 1);
}

PlanningTime IntegerCostModel::Sequence(int64_t length, int members) const {
  const int64_t d = members;
  const PlanningTime compute = attention_ * PairsOf(0, length);
  const PlanningTime transfer = PlanningTime{ring_} * length * (d - 1);
  return PlanningTime{linear_} * length / d + std::max(compute / d, (transfer + compute / d) / d) +
         PlanningTime{ring_step_} * (d - 1);
}

PlanningTime IntegerCostModel::BestSequence(int64_t length, int least_members,
                                            int most_members) const {
  PlanningTime best = Sequence(length, least_members);
  for (int d = least_members + 1; d <= most_members; ++d) {
    // From here on the latency of the ring alone is more than the best.
    if (PlanningTime{ring_step_} * (d - 1) >= best) break;
    best = std::min(best, Sequence(length, d));
  }
  return best;
}

PlanningTime IntegerCostModel::SequenceArea(int64_t length, int members) const {
  return PlanningTime{linear_} * length + attention_ * PairsOf(0, length) +
         PlanningTime{ring_step_} * members * (members - 1);
}

double IntegerCostModel::Seconds(PlanningTime time) {
  return static_cast<double>(time) / kUnitsPerSecond;
}

}  // namespace longspan
