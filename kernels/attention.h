// Attention: packed, variable-length, bottom-right causal or full, with log-sum-exp out.
//
// One shape serves everything: a whole document is a span with queries = keys and causal; a ring
// step is a full span or the causal diagonal; one token against a cache is a span of one query.
// Tiled with an online softmax (FlashAttention-2, arXiv 2307.08691): no score matrix is ever
// stored. Grouped-query attention: query head h uses KV head h * kv_heads / heads.
#ifndef LONGSPAN_KERNELS_ATTENTION_H_
#define LONGSPAN_KERNELS_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Query rows [query_begin, +query_count) see key rows [key_begin, +key_count). With `causal`, query
// i of the span sees keys j <= i + key_count - query_count; otherwise all. Rows may end up without
// any key. Spans of one call must not overlap in query rows; in a backward call they may overlap in
// key rows only if they are equal or disjoint in keys.
struct AttentionSpan {
  int64_t query_begin = 0;
  int64_t query_count = 0;
  int64_t key_begin = 0;
  int64_t key_count = 0;
  bool causal = true;
  // Sliding window: of the keys above, query i sees key j only if distance + i - j < window.
  // `distance` is the position of the first query less that of the first key, so a query sees
  // `window` positions at most, its own included. 0: no window, and `distance` says nothing. With
  // `causal` it is key_count - query_count. Tiles outside of all windows cost nothing.
  int64_t window = 0;
  int64_t distance = 0;
};

// q, out: f32 (query rows, heads, head_dim); k, v: f32 (key rows, kv_heads, head_dim); any row
// stride, head_dim contiguous and heads adjacent. lse: f32 (query rows, heads), natural log of the
// sum of exp(scale * score). Rows of no span are not written. A row without keys gets out = 0 and
// lse = -inf.
void AttentionForward(TensorView q, TensorView k, TensorView v,
                      const std::vector<AttentionSpan>& spans, float scale, TensorView out,
                      TensorView lse, Stream& stream);

// Merges a block's result into a running one: L = log(exp(La) + exp(Lb)), O = Oa exp(La - L) + Ob
// exp(Lb - L), in place in (out, lse), for all rows given. Both -inf: O = 0, L = -inf. A block LSE
// of +inf counts as -inf.
void MergeAttention(TensorView block_out, TensorView block_lse, TensorView out, TensorView lse,
                    Stream& stream);

// delta[row, head] = sum over head_dim of dout * out, f32 (rows, heads): input of the backward
// pass.
void AttentionDelta(TensorView out, TensorView dout, TensorView delta, Stream& stream);

// dq, dk, dv accumulate (+=). `lse` and `delta` are the global ones of the final output, not a
// block's own. Shapes as in the forward pass. Sums have an order that depends only on shapes and
// the device's thread count.
void AttentionBackward(TensorView q, TensorView k, TensorView v, TensorView dout, TensorView lse,
                       TensorView delta, const std::vector<AttentionSpan>& spans, float scale,
                       TensorView dq, TensorView dk, TensorView dv, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_ATTENTION_H_
