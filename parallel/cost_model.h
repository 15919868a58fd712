// CostModel: seconds for a sequence of s tokens on d ranks, forward plus backward of the whole
// model on a rank of speed 1. The public JSON form has the five coefficients as keys of the same
// names.
#ifndef LONGSPAN_PARALLEL_COST_MODEL_H_
#define LONGSPAN_PARALLEL_COST_MODEL_H_

#include <cstdint>

namespace longspan {

struct CostModel {
  double attention_seconds_per_pair = 0;
  double linear_seconds_per_token = 0;
  double ring_seconds_per_token = 0;
  double ring_step_seconds = 0;
  double micro_batch_seconds = 0;

  // T(s, d): one sequence alone in a group of `members` ranks, without micro_batch_seconds. With
  // p = s*(s+1)/2 pairs:
  // linear*s/d + max(attention*p/d, ring*s*(d-1)/d + attention*p/d^2) + ring_step*(d-1).
  double SequenceSeconds(int64_t length, int members) const;
};

// The coefficients of a model from operation counts alone, for a rank of `flops_per_second`, and
// links of `bytes_per_second`. Per token forward plus backward: 6 * matmul_parameters; per (query,
// key) pair 12 * layers * width (attention as causal pairs); a ring moves KV twice and FP32 dK/dV
// once, 4 bytes a value here.
CostModel AnalyticCostModel(int64_t matmul_parameters, int layers, int64_t width, int64_t kv_width,
                            double flops_per_second, double bytes_per_second);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_COST_MODEL_H_
