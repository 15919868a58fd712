#include "parallel/cost_model.h"

#include <algorithm>

#include "kernels/device/check.h"
#include "parallel/integer_cost.h"

namespace longspan {

std::vector<int> HeadParallelism::Widths() const {
  std::vector<int> widths;
  for (int width = 1; width <= std::min(most, kv_heads); ++width) {
    if (kv_heads % width == 0) widths.push_back(width);
  }
  return widths;
}

double CostModel::SequenceSeconds(int64_t length, int members) const {
  LONGSPAN_CHECK(length >= 0 && members >= 1, "a sequence has tokens and at least one rank");
  const double s = static_cast<double>(length);
  const double d = members;
  const double pairs = static_cast<double>(PairsOf(0, length, attention_window));
  const double compute = attention_seconds_per_pair * pairs / d;
  const double ring = ring_seconds_per_token *
                      static_cast<double>(RingTokens(length, members, attention_window)) / d;
  const auto with_heads_by = [&](int width) {
    const double h = width, m = d / h;
    // The last block's compute has no transfer to hide behind.
    const double transfer = members == 1 ? 0 : ring * (m - 1) + compute / m;
    const double exchange = ring * heads.ExchangeShare() * (h - 1) / h;
    return linear_seconds_per_token * s / d + exchange + std::max(compute, transfer) +
           ring_step_seconds * (m - 1 + (width > 1 ? kHeadExchangeSteps : 0));
  };
  double seconds = with_heads_by(1);
  if (attention_window > 0) return seconds;
  for (const int width : heads.Widths()) {
    if (members % width != 0) continue;
    const double other = with_heads_by(width);
    seconds = heads.widest ? other : std::min(seconds, other);
  }
  return seconds;
}

CostModel AnalyticCostModel(int64_t matmul_parameters, int layers, int64_t width, int64_t kv_width,
                            double flops_per_second, double bytes_per_second) {
  LONGSPAN_CHECK(flops_per_second > 0 && bytes_per_second > 0, "rates are positive");
  CostModel cost;
  cost.attention_seconds_per_pair = 12.0 * layers * static_cast<double>(width) / flops_per_second;
  cost.linear_seconds_per_token = 6.0 * static_cast<double>(matmul_parameters) / flops_per_second;
  // K and V, 4 bytes a value, three times: forward, backward, and their gradients.
  cost.ring_seconds_per_token =
      3 * 2 * 4.0 * layers * static_cast<double>(kv_width) / bytes_per_second;
  cost.ring_step_seconds = kRingStepSecondsPerLayer * layers;
  cost.micro_batch_seconds = kMicroBatchSecondsPerLayer * layers;
  return cost;
}

}  // namespace longspan
