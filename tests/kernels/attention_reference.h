// Attention by brute force in FP64: the whole row of scores of one query at a time, meant to be
// read beside the formulas.
#ifndef LONGSPAN_TESTS_KERNELS_ATTENTION_REFERENCE_H_
#define LONGSPAN_TESTS_KERNELS_ATTENTION_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/attention.h"

namespace longspan::reference {

struct AttentionSizes {
  int64_t query_rows, key_rows, heads, kv_heads, head_dim;
  double scale;
};

struct AttentionGradients {
  std::vector<double> dq, dk, dv;
};

// Contiguous (rows, heads, head_dim); lse (rows, heads).
class Attention {
 public:
  Attention(AttentionSizes sizes, std::vector<AttentionSpan> spans, std::vector<double> q,
            std::vector<double> k, std::vector<double> v)
      : q_(std::move(q)),
        k_(std::move(k)),
        v_(std::move(v)),
        sizes_(sizes),
        spans_(std::move(spans)) {}

  void Forward(std::vector<double>& out, std::vector<double>& lse) const {
    const int64_t d = sizes_.head_dim;
    ForEachQuery(
        [&](int64_t row, int64_t head, const std::vector<double>& p, double l, int64_t key_begin) {
          lse[row * sizes_.heads + head] = l;
          double* o = &out[(row * sizes_.heads + head) * d];
          std::fill(o, o + d, 0.0);
          for (size_t j = 0; j < p.size(); ++j) {
            const double* value = &v_[KeyPlace(key_begin + static_cast<int64_t>(j), head)];
            for (int64_t i = 0; i < d; ++i) o[i] += p[j] * value[i];
          }
        });
  }

  // Gradients of sum(dout * out). The softmax is taken over the keys of the spans given.
  AttentionGradients Backward(const std::vector<double>& dout) const {
    const int64_t d = sizes_.head_dim;
    AttentionGradients g{std::vector<double>(q_.size(), 0), std::vector<double>(k_.size(), 0),
                         std::vector<double>(v_.size(), 0)};
    ForEachQuery(
        [&](int64_t row, int64_t head, const std::vector<double>& p, double, int64_t key_begin) {
          const int64_t place = (row * sizes_.heads + head) * d;
          std::vector<double> dp(p.size(), 0);
          double mean = 0;
          for (size_t j = 0; j < p.size(); ++j) {
            const int64_t key = KeyPlace(key_begin + static_cast<int64_t>(j), head);
            for (int64_t i = 0; i < d; ++i) {
              dp[j] += dout[place + i] * v_[key + i];
              g.dv[key + i] += p[j] * dout[place + i];
            }
            mean += p[j] * dp[j];
          }
          for (size_t j = 0; j < p.size(); ++j) {
            const int64_t key = KeyPlace(key_begin + static_cast<int64_t>(j), head);
            const double ds = sizes_.scale * p[j] * (dp[j] - mean);
            for (int64_t i = 0; i < d; ++i) {
              g.dq[place + i] += ds * k_[key + i];
              g.dk[key + i] += ds * q_[place + i];
            }
          }
        });
    return g;
  }

  std::vector<double> q_, k_, v_;

 private:
  int64_t KeyPlace(int64_t row, int64_t head) const {
    const int64_t kv_head = head * sizes_.kv_heads / sizes_.heads;
    return (row * sizes_.kv_heads + kv_head) * sizes_.head_dim;
  }

  // Calls visit(row, head, probabilities of the visible keys, lse, first of their rows).
  template <typename Visit>
  void ForEachQuery(const Visit& visit) const {
    for (const AttentionSpan& span : spans_) {
      for (int64_t query = 0; query < span.query_count; ++query) {
        int64_t visible = span.key_count;
        if (span.causal) {
          visible = std::max<int64_t>(0, query + span.key_count - span.query_count + 1);
        }
        int64_t hidden = 0;
        while (span.window > 0 && hidden < visible &&
               span.distance + query - hidden >= span.window) {
          ++hidden;
        }
        visible -= hidden;
        const int64_t first_key = span.key_begin + hidden;
        const int64_t row = span.query_begin + query;
        for (int64_t head = 0; head < sizes_.heads; ++head) {
          const double* q = &q_[(row * sizes_.heads + head) * sizes_.head_dim];
          std::vector<double> p(visible);
          double highest = -std::numeric_limits<double>::infinity(), sum = 0;
          for (int64_t j = 0; j < visible; ++j) {
            const double* k = &k_[KeyPlace(first_key + j, head)];
            double score = 0;
            for (int64_t i = 0; i < sizes_.head_dim; ++i) score += q[i] * k[i];
            p[j] = sizes_.scale * score;
            highest = std::max(highest, p[j]);
          }
          for (double& x : p) {
            x = std::exp(x - highest);
            sum += x;
          }
          for (double& x : p) x /= sum;
          visit(row, head, p, visible == 0 ? highest : highest + std::log(sum), first_key);
        }
      }
    }
  }

  AttentionSizes sizes_;
  std::vector<AttentionSpan> spans_;
};

}  // namespace longspan::reference

#endif  // LONGSPAN_TESTS_KERNELS_ATTENTION_REFERENCE_H_
