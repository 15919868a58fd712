// Stand-ins for the operators of kernels/attention.h, linked in their place: they sleep for as long
// as their (query, key) pairs would take, so that eight ranks on two cores behave as on eight. What
// they compute meanwhile is attention with all weights one: O_i is the sum of V_j over the keys j
// that query i sees, dQ_i that of K_j, dK_j and dV_j those of Q_i and dO_i over the queries i that
// see key j. Running sums make that linear in rows, and it is right only if every pair was seen
// exactly once and every gradient got home.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "attention_pace.h"
#include "kernels/attention.h"

namespace longspan {
namespace {

double pace = 0;

// One span's queries and keys. Query i sees the first FirstKeys(i) keys.
int64_t FirstKeys(const AttentionSpan& span, int64_t query) {
  return span.causal ? query + 1 + span.key_count - span.query_count : span.key_count;
}

double Pairs(const std::vector<AttentionSpan>& spans) {
  double pairs = 0;
  for (const AttentionSpan& span : spans) {
    const double mean =
        0.5 * static_cast<double>(FirstKeys(span, 0) + FirstKeys(span, span.query_count - 1));
    pairs += static_cast<double>(span.query_count) * mean;
  }
  return pairs;
}

// Runs `body` on the stream, which goes on when the pairs' time is over.
template <typename Body>
void LaunchPaced(const char* name, Stream& stream, double seconds, Body body) {
  stream.Launch(name, [seconds, body = std::move(body)] {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    body();
    if (seconds > 0) std::this_thread::sleep_until(end);
  });
}

float* Row(const TensorView& x, int64_t row) {
  return static_cast<float*>(x.raw()) + row * x.stride(0);
}

// to[i] += the sum of from[j] over the keys j that query i sees; `set`: to[i] = that sum.
void SumOverKeys(const AttentionSpan& span, const TensorView& from, const TensorView& to,
                 bool set) {
  const int64_t heads = to.dim(1), group = heads / from.dim(1), head_dim = to.dim(2);
  std::vector<double> sum(from.dim(1) * head_dim, 0.0);
  int64_t summed = 0;
  for (int64_t query = 0; query < span.query_count; ++query) {
    for (; summed < FirstKeys(span, query); ++summed) {
      const float* row = Row(from, span.key_begin + summed);
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += row[c];
    }
    float* row = Row(to, span.query_begin + query);
    if (set) std::fill(row, row + heads * head_dim, 0.0f);
    for (int64_t head = 0; head < heads; ++head, row += head_dim) {
      const double* of_keys = &sum[head / group * head_dim];
      for (int64_t c = 0; c < head_dim; ++c) row[c] += static_cast<float>(of_keys[c]);
    }
  }
}

// to[j] += the sum of from[i] over the queries i that see key j.
void SumOverQueries(const AttentionSpan& span, const TensorView& from, const TensorView& to) {
  const int64_t heads = from.dim(1), group = heads / to.dim(1), head_dim = from.dim(2);
  std::vector<double> sum(to.dim(1) * head_dim, 0.0);
  int64_t query = span.query_count;
  for (int64_t key = span.key_count - 1; key >= 0; --key) {
    for (; query > 0 && FirstKeys(span, query - 1) > key; --query) {
      const float* row = Row(from, span.query_begin + query - 1);
      for (int64_t head = 0; head < heads; ++head, row += head_dim) {
        double* of_keys = &sum[head / group * head_dim];
        for (int64_t c = 0; c < head_dim; ++c) of_keys[c] += row[c];
      }
    }
    float* row = Row(to, span.key_begin + key);
    for (size_t c = 0; c < sum.size(); ++c) row[c] += static_cast<float>(sum[c]);
  }
}

}  // namespace

bool AttentionSleeps() { return true; }
void SetAttentionPace(double forward_seconds_per_pair) { pace = forward_seconds_per_pair; }

void AttentionForward(TensorView, TensorView, TensorView v, const std::vector<AttentionSpan>& spans,
                      float, TensorView out, TensorView, Stream& stream) {
  LaunchPaced("attention", stream, pace * Pairs(spans), [=] {
    for (const AttentionSpan& span : spans) SumOverKeys(span, v, out, /*set=*/true);
  });
}

void MergeAttention(TensorView block_out, TensorView, TensorView out, TensorView, Stream& stream) {
  stream.Launch("merge", [=] {
    for (int64_t i = 0; i < out.dim(0); ++i) {
      const int64_t width = out.dim(1) * out.dim(2);
      for (int64_t c = 0; c < width; ++c) Row(out, i)[c] += Row(block_out, i)[c];
    }
  });
}

void AttentionDelta(TensorView, TensorView, TensorView, Stream&) {}

void AttentionBackward(TensorView q, TensorView k, TensorView, TensorView dout, TensorView,
                       TensorView, const std::vector<AttentionSpan>& spans, float, TensorView dq,
                       TensorView dk, TensorView dv, Stream& stream) {
  LaunchPaced("attention", stream, kBackwardOverForward * pace * Pairs(spans), [=] {
    for (const AttentionSpan& span : spans) {
      SumOverKeys(span, k, dq, /*set=*/false);
      SumOverQueries(span, q, dk);
      SumOverQueries(span, dout, dv);
    }
  });
}

}  // namespace longspan
