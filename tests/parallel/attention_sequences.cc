#include "attention_sequences.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "parallel/plan.h"

namespace longspan {
namespace {

// Norm of the difference by the norm of what is expected; NaN if anything is.
double RelativeError(const std::vector<double>& got, const std::vector<double>& expected,
                     double scale_of = 0) {
  double difference = 0, norm = scale_of * scale_of;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

double Norm(const std::vector<double>& x) {
  double sum = 0;
  for (double value : x) sum += value * value;
  return std::sqrt(sum);
}

// Rounding grows with the size of the scores.
double Tolerance(const Result& expected) {
  double largest = 0;
  for (double lse : expected.lse) largest = std::max(largest, std::abs(lse));
  return 1e-6 * std::max(5.0, largest / 5);
}

// Half a unit of bf16's eighth bit is 2^-9 of a value; errors of keys and values reach the results
// through sums of many, and gradients take them in twice.
constexpr double kBf16WireTolerance = 6e-3;

// The rows of a member, with some more behind them, maybe with other columns between the rows; all
// NaN at first.
class Rows {
 public:
  static constexpr int64_t kExtra = 3;

  Rows(int64_t rows, int64_t heads, int64_t head_dim, int64_t gap)
      : rows_(rows), width_(heads * head_dim), stride_(width_ + gap) {
    values_.assign((rows + kExtra) * stride_, kNaN);
    view_ = TensorView::Of(values_.data(), {rows + kExtra, stride_})
                .Slice(1, 0, width_)
                .Reshape({rows + kExtra, heads, head_dim});
  }
  Rows(const Rows&) = delete;
  TensorView view() const { return view_; }
  // (rows, heads) of a head_dim of one.
  TensorView matrix() const { return view_.Reshape({view_.dim(0), view_.dim(1)}); }
  float* row(int64_t index) { return values_.data() + index * stride_; }
  // Nothing outside of the member's rows and columns was written.
  bool OnlyOwnWritten() const {
    for (size_t i = 0; i < values_.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i) / stride_,
                    column = static_cast<int64_t>(i) % stride_;
      if ((row >= rows_ || column >= width_) && !std::isnan(values_[i])) return false;
    }
    return true;
  }

 private:
  const int64_t rows_, width_, stride_;
  std::vector<float> values_;
  TensorView view_;
};

// Calls body(sequence, position, row) for every row of a member.
template <typename Body>
void ForRows(const Member& member, const Body& body) {
  int64_t row = 0;
  size_t next = 0;
  if (member.layout.has_value()) {
    const RingLayout& layout = *member.layout;
    for (int64_t length : layout.lengths) {
      for (const TokenRange& range :
           ZigzagRanges(length, static_cast<int>(layout.ranks.size()), layout.member)) {
        for (int64_t position = range.begin; position < range.end; ++position) {
          body(member.sequences[next], position, row++);
        }
      }
      ++next;
    }
  }
  for (int64_t length : member.whole) {
    for (int64_t position = 0; position < length; ++position) {
      body(member.sequences[next], position, row++);
    }
    ++next;
  }
}

}  // namespace

Sequence RandomSequence(int64_t length, const AttentionShape& shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  auto fill = [&](int64_t width) {
    std::vector<float> values(length * width);
    for (float& value : values) value = normal(random);
    return values;
  };
  Sequence s{length, fill(shape.q_width()), fill(shape.kv_width()), fill(shape.kv_width()),
             fill(shape.q_width())};
  if (shape.shift != 0) {
    // One component that is the same for all queries, and for all keys.
    const float root = std::sqrt(std::abs(shape.shift) / shape.scale());
    for (size_t i = 0; i < s.q.size(); i += shape.head_dim) s.q[i] = root;
    for (size_t i = 0; i < s.k.size(); i += shape.head_dim) s.k[i] = shape.shift < 0 ? -root : root;
  }
  return s;
}

Result BruteForce(const Sequence& s, const AttentionShape& shape) {
  const int d = shape.head_dim, per_kv = shape.heads / shape.kv_heads;
  Result r;
  r.out.resize(s.q.size());
  r.dq.resize(s.q.size());
  r.dk.resize(s.k.size());
  r.dq_terms.resize(s.q.size());
  r.dk_terms.resize(s.k.size());
  r.dv.resize(s.v.size());
  r.lse.resize(s.length * shape.heads);
  std::vector<double> p, dp;
  for (int head = 0; head < shape.heads; ++head) {
    for (int64_t i = 0; i < s.length; ++i) {
      const size_t query = i * shape.q_width() + head * d;
      auto key = [&](int64_t j) { return j * shape.kv_width() + head / per_kv * d; };
      const int64_t first = shape.window > 0 ? std::max<int64_t>(0, i + 1 - shape.window) : 0;
      p.assign(i + 1, 0);
      dp.assign(i + 1, 0);
      double largest = -std::numeric_limits<double>::infinity();
      for (int64_t j = first; j <= i; ++j) {
        for (int c = 0; c < d; ++c) {
          p[j] += static_cast<double>(s.q[query + c]) * s.k[key(j) + c];
          dp[j] += static_cast<double>(s.dout[query + c]) * s.v[key(j) + c];
        }
        p[j] *= shape.scale();
        largest = std::max(largest, p[j]);
      }
      double sum = 0;
      for (int64_t j = first; j <= i; ++j) sum += std::exp(p[j] - largest);
      const double lse = largest + std::log(sum);
      r.lse[i * shape.heads + head] = lse;
      double delta = 0;
      for (int64_t j = first; j <= i; ++j) {
        p[j] = std::exp(p[j] - lse);
        delta += p[j] * dp[j];
      }
      for (int64_t j = first; j <= i; ++j) {
        const double ds = p[j] * (dp[j] - delta) * shape.scale();
        const double terms = p[j] * (std::abs(dp[j]) + std::abs(delta)) * shape.scale();
        for (int c = 0; c < d; ++c) {
          r.out[query + c] += p[j] * s.v[key(j) + c];
          r.dv[key(j) + c] += p[j] * s.dout[query + c];
          r.dq[query + c] += ds * s.k[key(j) + c];
          r.dk[key(j) + c] += ds * s.q[query + c];
          r.dq_terms[query + c] += terms * std::abs(s.k[key(j) + c]);
          r.dk_terms[key(j) + c] += terms * std::abs(s.q[query + c]);
        }
      }
    }
  }
  return r;
}

Result SingleRank(const Sequence& s, const AttentionShape& shape) {
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("single");
  std::vector<float> q = s.q, k = s.k, v = s.v, dout = s.dout;
  std::vector<float> out(q.size()), dq(q.size()), dk(k.size()), dv(v.size());
  std::vector<float> lse(s.length * shape.heads), delta(lse.size());
  auto queries = [&](std::vector<float>& x) {
    return TensorView::Of(x.data(), {s.length, shape.heads, shape.head_dim});
  };
  auto keys = [&](std::vector<float>& x) {
    return TensorView::Of(x.data(), {s.length, shape.kv_heads, shape.head_dim});
  };
  const TensorView lse_view = TensorView::Of(lse.data(), {s.length, shape.heads});
  const TensorView delta_view = TensorView::Of(delta.data(), {s.length, shape.heads});
  const std::vector<AttentionSpan> spans = {{0, s.length, 0, s.length, true, shape.window, 0}};
  AttentionForward(queries(q), keys(k), keys(v), spans, shape.scale(), queries(out), lse_view,
                   stream);
  AttentionDelta(queries(out), queries(dout), delta_view, stream);
  AttentionBackward(queries(q), keys(k), keys(v), queries(dout), lse_view, delta_view, spans,
                    shape.scale(), queries(dq), keys(dk), keys(dv), stream);
  EXPECT_TRUE(stream.Synchronize().ok());
  auto widen = [](const std::vector<float>& x) { return std::vector<double>(x.begin(), x.end()); };
  return {widen(out), widen(lse), widen(dq), widen(dk), widen(dv), {}, {}};
}

Result UnsetResult(const Sequence& sequence, const AttentionShape& shape) {
  const auto unset = [](size_t count) { return std::vector<double>(count, kNaN); };
  return {unset(sequence.q.size()),
          unset(sequence.length * shape.heads),
          unset(sequence.q.size()),
          unset(sequence.k.size()),
          unset(sequence.v.size()),
          {},
          {}};
}

void ExpectNear(const Result& got, const Result& expected, const Result& reference,
                const AttentionShape& shape, DType wire, const std::string& what) {
  const double tolerance = wire == DType::kF32 ? Tolerance(reference) : kBf16WireTolerance;
  EXPECT_LT(RelativeError(got.out, expected.out), tolerance) << what << ": out";
  EXPECT_LT(RelativeError(got.lse, expected.lse, 1), tolerance) << what << ": lse";
  // Of a single token dq and dk are zero but for rounding: measured by the gradients together. What
  // all keys have in common, which shifts the scores, cancels in dq, and likewise in dk, and so may
  // what a few tokens sum up to: measured by the terms that cancel.
  const double gradients = 0.1 * (Norm(reference.dq) + Norm(reference.dk) + Norm(reference.dv));
  const bool cancels = shape.shift != 0 || reference.lse.size() < size_t(16 * shape.heads);
  const double dq_scale = cancels ? Norm(reference.dq_terms) : gradients;
  const double dk_scale = cancels ? Norm(reference.dk_terms) : gradients;
  EXPECT_LT(RelativeError(got.dq, expected.dq, dq_scale), tolerance) << what << ": dq";
  EXPECT_LT(RelativeError(got.dk, expected.dk, dk_scale), tolerance) << what << ": dk";
  EXPECT_LT(RelativeError(got.dv, expected.dv), tolerance) << what << ": dv";
}

int64_t Member::rows() const {
  return std::accumulate(whole.begin(), whole.end(), layout.has_value() ? layout->rows() : 0);
}

std::vector<AttentionSpan> Member::WholeSpans() const {
  std::vector<AttentionSpan> spans;
  int64_t row = layout.has_value() ? layout->rows() : 0;
  for (int64_t length : whole) {
    spans.push_back({row, length, row, length, /*causal=*/true, options.window, /*distance=*/0});
    row += length;
  }
  return spans;
}

struct MemberRun::Tensors {
  Tensors(int64_t rows, const AttentionShape& shape, int64_t gap)
      : q(rows, shape.heads, shape.head_dim, gap),
        dout(rows, shape.heads, shape.head_dim, 0),
        out(rows, shape.heads, shape.head_dim, 0),
        dq(rows, shape.heads, shape.head_dim, gap),
        k(rows, shape.kv_heads, shape.head_dim, gap),
        v(rows, shape.kv_heads, shape.head_dim, gap),
        dk(rows, shape.kv_heads, shape.head_dim, gap),
        dv(rows, shape.kv_heads, shape.head_dim, gap),
        lse(rows, shape.heads, 1, 0),
        delta(rows, shape.heads, 1, 0) {}

  Rows q, dout, out, dq, k, v, dk, dv, lse, delta;
};

MemberRun::MemberRun(Member member, const AttentionShape& shape, int64_t gap,
                     const std::vector<Sequence>& sequences)
    : member_(std::move(member)),
      shape_(shape),
      tensors_(std::make_unique<Tensors>(member_.rows(), shape, gap)) {
  Tensors& t = *tensors_;
  ForRows(member_, [&](size_t s, int64_t position, int64_t row) {
    const Sequence& from = sequences[s];
    const auto copy = [&](const std::vector<float>& all, int64_t width, Rows& to) {
      std::copy_n(all.data() + position * width, width, to.row(row));
    };
    copy(from.q, shape.q_width(), t.q);
    copy(from.k, shape.kv_width(), t.k);
    copy(from.v, shape.kv_width(), t.v);
    copy(from.dout, shape.q_width(), t.dout);
    // Gradients are added to what is there.
    std::fill_n(t.dq.row(row), shape.q_width(), 0.0f);
    std::fill_n(t.dk.row(row), shape.kv_width(), 0.0f);
    std::fill_n(t.dv.row(row), shape.kv_width(), 0.0f);
  });
}

MemberRun::~MemberRun() = default;
MemberRun::MemberRun(MemberRun&&) noexcept = default;

absl::Status MemberRun::QueueForward(Transport& transport, Stream& stream,
                                     RingWorkspace* workspace) {
  const Tensors& t = *tensors_;
  const TensorView lse = t.lse.matrix();
  const std::vector<AttentionSpan> whole = member_.WholeSpans();
  if (!member_.layout.has_value()) {
    AttentionForward(t.q.view(), t.k.view(), t.v.view(), whole, shape_.scale(), t.out.view(), lse,
                     stream);
    return absl::OkStatus();
  }
  return RingAttentionForward(*member_.layout, whole, member_.options, t.q.view(), t.k.view(),
                              t.v.view(), shape_.scale(), t.out.view(), lse, transport, stream,
                              workspace);
}

absl::Status MemberRun::QueueBackward(Transport& transport, Stream& stream,
                                      RingWorkspace* workspace) {
  const Tensors& t = *tensors_;
  const TensorView lse = t.lse.matrix(), delta = t.delta.matrix();
  const std::vector<AttentionSpan> whole = member_.WholeSpans();
  if (const int64_t rows = member_.rows(); rows > 0) {
    AttentionDelta(t.out.view().Slice(0, 0, rows), t.dout.view().Slice(0, 0, rows),
                   delta.Slice(0, 0, rows), stream);
  }
  if (!member_.layout.has_value()) {
    AttentionBackward(t.q.view(), t.k.view(), t.v.view(), t.dout.view(), lse, delta, whole,
                      shape_.scale(), t.dq.view(), t.dk.view(), t.dv.view(), stream);
    return absl::OkStatus();
  }
  return RingAttentionBackward(*member_.layout, whole, member_.options, t.q.view(), t.k.view(),
                               t.v.view(), t.dout.view(), lse, delta, shape_.scale(), t.dq.view(),
                               t.dk.view(), t.dv.view(), transport, stream, workspace);
}

absl::Status MemberRun::Collect(std::vector<Result>& results) const {
  Tensors& t = *tensors_;
  ForRows(member_, [&](size_t s, int64_t position, int64_t row) {
    const auto copy = [&](Rows& from, int64_t width, std::vector<double>& all) {
      std::copy_n(from.row(row), width, all.data() + position * width);
    };
    copy(t.out, shape_.q_width(), results[s].out);
    copy(t.lse, shape_.heads, results[s].lse);
    copy(t.dq, shape_.q_width(), results[s].dq);
    copy(t.dk, shape_.kv_width(), results[s].dk);
    copy(t.dv, shape_.kv_width(), results[s].dv);
  });
  for (const Rows* each : {&t.out, &t.lse, &t.dq, &t.dk, &t.dv}) {
    if (!each->OnlyOwnWritten()) return absl::InternalError("wrote outside of the member's rows");
  }
  return absl::OkStatus();
}

}  // namespace longspan
