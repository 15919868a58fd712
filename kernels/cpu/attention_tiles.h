// The blocks that attention on the CPU is cut into, each run by one thread. Their bodies are
// compiled once for each instruction set.
//
// The rows of a (span, KV head) are its pairs (query, query head of the KV head's group), query
// first: row r is query r / group, head kv_head * group + r % group. So the heads of a group share
// every key tile that is loaded.
#ifndef LONGSPAN_KERNELS_CPU_ATTENTION_TILES_H_
#define LONGSPAN_KERNELS_CPU_ATTENTION_TILES_H_

#include <algorithm>
#include <cstdint>

#include "kernels/attention.h"

namespace longspan::cpu {

// Rows of a matrix of f32; the stride is in elements.
template <typename T>
struct StridedRows {
  T* data = nullptr;
  int64_t stride = 0;
  T* Row(int64_t row) const { return data + row * stride; }
};

struct AttentionShape {
  int64_t head_dim = 0;
  int64_t group = 1;  // query heads for each KV head
  float scale = 1;
};

struct AttentionForwardTensors {
  AttentionShape shape;
  StridedRows<const float> q, k, v;
  StridedRows<float> out, lse;
};

struct AttentionBackwardTensors {
  AttentionShape shape;
  StridedRows<const float> q, k, v, dout, lse, delta;
  StridedRows<float> dq, dk, dv;
};

// Query `query` of the span sees keys [FirstKeyOf, EndOfKeysOf); neither falls from query to query.
inline int64_t FirstKeyOf(const AttentionSpan& span, int64_t query) {
  if (span.window == 0) return 0;
  return std::clamp<int64_t>(span.distance + query + 1 - span.window, 0, span.key_count);
}
inline int64_t EndOfKeysOf(const AttentionSpan& span, int64_t query) {
  if (!span.causal) return span.key_count;
  return std::clamp<int64_t>(query + 1 + span.key_count - span.query_count, 0, span.key_count);
}

// Queries [FirstQueryThatSees, EndOfQueriesThatSee) of the span see key `key`; an empty range if
// none does.
inline int64_t FirstQueryThatSees(const AttentionSpan& span, int64_t key) {
  if (!span.causal) return key < span.key_count ? 0 : span.query_count;
  return std::clamp<int64_t>(key - (span.key_count - span.query_count), 0, span.query_count);
}
inline int64_t EndOfQueriesThatSee(const AttentionSpan& span, int64_t key) {
  if (span.window == 0) return span.query_count;
  return std::clamp<int64_t>(key + span.window - span.distance, 0, span.query_count);
}

// Queries of the span that see any of keys [key_begin, key_end), at least one key.
struct QueryRange {
  int64_t begin = 0, end = 0;
};
inline QueryRange QueriesThatSee(const AttentionSpan& span, int64_t key_begin, int64_t key_end) {
  const int64_t begin = FirstQueryThatSees(span, key_begin);
  return {begin, std::max(begin, EndOfQueriesThatSee(span, key_end - 1))};
}

// Where the rows of a (span, KV head) lie in tensors of shape (rows, heads, head_dim) and (rows,
// heads).
struct HeadRows {
  HeadRows(const AttentionShape& shape, const AttentionSpan& span, int64_t kv_head)
      : query_begin(span.query_begin),
        first_head(kv_head * shape.group),
        group(shape.group),
        head_dim(shape.head_dim) {}
  template <typename T>
  T* Vector(StridedRows<T> x, int64_t row) const {
    return x.Row(query_begin + row / group) + (first_head + row % group) * head_dim;
  }
  template <typename T>
  T& Scalar(StridedRows<T> x, int64_t row) const {
    return x.Row(query_begin + row / group)[first_head + row % group];
  }
  int64_t query_begin, first_head, group, head_dim;
};

// Rows that one block of either pass holds at a time: a multiple of every panel width.
int64_t AttentionBlockRows(int64_t head_dim);

// `floats` floats, not initialised, aligned to a vector. They belong to the calling thread and last
// until its next call.
float* AttentionScratch(int64_t floats);

// Copies `count` vectors of head_dim, one for each row at `x`, into out (count, head_dim).
void PackRows(const float* x, int64_t stride, int64_t count, int64_t head_dim, float* out);

// Writes out and lse of rows [row_begin, row_end) of the span and KV head; at most
// AttentionBlockRows of them.
void AttentionForwardBlock(const AttentionForwardTensors& tensors, const AttentionSpan& span,
                           int64_t kv_head, int64_t row_begin, int64_t row_end);

// Adds what keys [key_begin, key_end) of the span contribute: to dk and dv, and to dq unless
// `partial_dq` is given. Then the contribution to dq of row r, for all rows of QueriesThatSee these
// keys, is written to partial_dq + (r - first) * head_dim, where `first` is the first of those
// rows.
void AttentionBackwardPart(const AttentionBackwardTensors& tensors, const AttentionSpan& span,
                           int64_t kv_head, int64_t key_begin, int64_t key_end, float* partial_dq);

}  // namespace longspan::cpu

#endif  // LONGSPAN_KERNELS_CPU_ATTENTION_TILES_H_
