#include "parallel/span_portions.h"

#include <algorithm>
#include <numeric>

#include "kernels/device/check.h"

namespace longspan {
namespace {

// Cuts are at multiples of this, so that kernels keep whole tiles of queries.
constexpr int64_t kRowsOfACut = 64;

// Pairs of the first `rows` queries.
double Pairs(const AttentionSpan& span, int64_t rows) {
  const auto all = [](int64_t n, int64_t keys_before) {
    return static_cast<double>(n) *
           (static_cast<double>(keys_before) + static_cast<double>(n + 1) / 2);
  };
  const int64_t keys_before = span.key_count - span.query_count;
  if (span.window == 0) return all(rows, keys_before);
  // Those that do not see a whole window yet.
  const int64_t growing = std::clamp<int64_t>(span.window - keys_before, 0, rows);
  return all(growing, keys_before) +
         static_cast<double>(rows - growing) * static_cast<double>(span.window);
}

AttentionSpan QueriesOf(const AttentionSpan& span, int64_t begin, int64_t end) {
  AttentionSpan part = span;
  part.query_begin += begin;
  part.query_count = end - begin;
  part.key_count = span.key_count - span.query_count + end;
  part.distance = part.key_count - part.query_count;
  return part;
}

}  // namespace

std::vector<std::vector<AttentionSpan>> SpanPortions(const std::vector<AttentionSpan>& spans,
                                                     const std::vector<double>& weights) {
  double pairs_left = 0;
  for (const AttentionSpan& span : spans) {
    LONGSPAN_CHECK(span.causal, "whole sequences are causal");
    pairs_left += Pairs(span, span.query_count);
  }
  double weight_left = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::vector<AttentionSpan>> portions(weights.size());
  size_t next = 0;   // span
  int64_t done = 0;  // queries of it
  for (size_t i = 0; i < weights.size(); ++i) {
    const bool last = i + 1 == weights.size();
    double wanted = weight_left > 0 ? pairs_left * weights[i] / weight_left : 0;
    while (next < spans.size() && (last || wanted > 0)) {
      const AttentionSpan& span = spans[next];
      const double before = Pairs(span, done);
      int64_t end = span.query_count;
      if (!last && Pairs(span, end) - before > wanted) {
        // The first multiple at which the portion has what it should.
        end = done;
        while (end < span.query_count && Pairs(span, end) - before < wanted) {
          end = std::min(end + kRowsOfACut, span.query_count);
        }
      }
      portions[i].push_back(QueriesOf(span, done, end));
      const double taken = Pairs(span, end) - before;
      wanted -= taken;
      pairs_left -= taken;
      done = end;
      if (done == span.query_count) {
        ++next;
        done = 0;
      }
    }
    weight_left -= weights[i];
  }
  return portions;
}

}  // namespace longspan
