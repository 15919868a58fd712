// CostModel: seconds for a sequence of s tokens on d ranks, forward plus backward of the whole
// model on a rank of speed 1.
#ifndef LONGSPAN_PARALLEL_COST_MODEL_H_
#define LONGSPAN_PARALLEL_COST_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

// Which groups may split the heads of attention between neighbouring members (ring_attention.h).
// What a run allows, not what is measured.
struct HeadParallelism {
  int kv_heads = 1;        // a width divides it
  int queries_per_kv = 1;  // heads of queries for one of keys and values
  int most = 1;            // ranks, at most those of a node; 1: ring alone
  // Takes the largest width that a group can have, not the one of least time.
  bool widest = false;

  // Those there are, ascending; the first is 1.
  std::vector<int> Widths() const;
  // Bytes that a token's exchange moves, for one of its ring: q, k, v, O, their gradients and what
  // the backward pass needs again are 5q + 6kv values where queries have q values a token, the
  // ring's keys and values 6kv.
  double ExchangeShare() const { return 1 + 5.0 / 6 * queries_per_kv; }
};

// The latency of the exchanges of a group that splits heads, in steps of a ring: those of the way
// in and out are two messages at a time where a ring step is one, in forward and backward pass.
inline constexpr int kHeadExchangeSteps = 2;

struct CostModel {
  double attention_seconds_per_pair = 0;
  double linear_seconds_per_token = 0;
  double ring_seconds_per_token = 0;
  double ring_step_seconds = 0;
  double micro_batch_seconds = 0;
  // Speed of each rank against the coefficients' own rank; empty: all 1. Work takes 1/speed as
  // long.
  std::vector<double> rank_speeds;
  // Positions that a query sees, its own included; 0: all before it. Pairs outside of it cost
  // nothing, and of a ring's keys and values only those within reach travel. (The latency of a ring
  // counts as without a window, which is too much.)
  int64_t attention_window = 0;
  // With a window heads are not split, whatever this says. Not part of the JSON form.
  HeadParallelism heads = {};

  // T(s, d): one sequence alone in a group of `members` ranks, without micro_batch_seconds. With
  // p = s*(s+1)/2 pairs, fewer with a window:
  // linear*s/d + max(attention*p/d, ring*s*(d-1)/d + attention*p/d^2) + ring_step*(d-1).
  // Where h members split heads and m = d/h are in a ring:
  // linear*s/d + exchange*s*(h-1)/(h*d) + max(attention*p/d, ring*s*(m-1)/d + attention*p/(d*m)) +
  // ring_step*(m-1 + kHeadExchangeSteps), with exchange = ring * heads.ExchangeShare(). (At the
  // rate of the ring's links: too much where those inside a node are faster.) T is the least over
  // the widths h that divide d, or that of the largest one.
  double SequenceSeconds(int64_t length, int members) const;
};

// The public JSON form: the five coefficients as keys of the same names, attention_window where it
// is not 0, and rank_speeds where it is not empty. Reading gives back the same bits.
std::string ToJson(const CostModel& cost);
// Unknown keys are ignored. `source`: the file's name, which every error opens with.
// InvalidArgument names the key that is missing, not a number, negative or beyond what planners
// calculate with (integer_cost.h).
absl::StatusOr<CostModel> CostModelFromJson(const std::string& json, const std::string& source);

// What operation counts cannot tell, from the case study of arXiv 2502.21231 (32 layers): 20 us a
// ring step for each layer and pass, the backward pass counting twice, and 8 ms of fixed work a
// micro-batch.
inline constexpr double kRingStepSecondsPerLayer = 3 * 20e-6;
inline constexpr double kMicroBatchSecondsPerLayer = 8e-3 / 32;

// The coefficients of a model from operation counts alone, for a rank of `flops_per_second`, and
// links of `bytes_per_second`. Per token forward plus backward: 6 * matmul_parameters; per (query,
// key) pair 12 * layers * width (attention as causal pairs); a ring moves KV twice and FP32 dK/dV
// once, 4 bytes a value here.
CostModel AnalyticCostModel(int64_t matmul_parameters, int layers, int64_t width, int64_t kv_width,
                            double flops_per_second, double bytes_per_second);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_COST_MODEL_H_
