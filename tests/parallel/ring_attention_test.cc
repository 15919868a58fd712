#include "parallel/ring_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/attention.h"
#include "parallel/plan.h"
#include "parallel/transport/rank_threads.h"

// Every buffer of the device starts as NaN: whatever reads what nobody wrote or sent shows. (The
// test is linked with
// --wrap=aligned_alloc.)
extern "C" void* __real_aligned_alloc(size_t alignment, size_t bytes);
extern "C" void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
  void* memory = __real_aligned_alloc(alignment, bytes);
  if (memory != nullptr) std::memset(memory, 0xff, bytes);
  return memory;
}

namespace longspan {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  int heads = 2;
  int kv_heads = 1;
  int head_dim = 8;
  float shift = 0;  // of all scores
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  int64_t q_width() const { return int64_t{heads} * head_dim; }
  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
};

// One whole sequence: inputs, and results of any of the three ways to compute them.
struct Sequence {
  int64_t length = 0;
  std::vector<float> q, k, v, dout;
};
struct Result {
  std::vector<double> out, lse, dq, dk, dv;
  // Of the reference: the absolute values of the terms that dq and dk are sums of, added up.
  std::vector<double> dq_terms, dk_terms;
};

Sequence RandomSequence(int64_t length, const Shape& shape, uint64_t seed) {
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

// By the definition, in FP64.
Result BruteForce(const Sequence& s, const Shape& shape) {
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
      p.assign(i + 1, 0);
      dp.assign(i + 1, 0);
      double largest = -std::numeric_limits<double>::infinity();
      for (int64_t j = 0; j <= i; ++j) {
        for (int c = 0; c < d; ++c) {
          p[j] += static_cast<double>(s.q[query + c]) * s.k[key(j) + c];
          dp[j] += static_cast<double>(s.dout[query + c]) * s.v[key(j) + c];
        }
        p[j] *= shape.scale();
        largest = std::max(largest, p[j]);
      }
      double sum = 0;
      for (double score : p) sum += std::exp(score - largest);
      const double lse = largest + std::log(sum);
      r.lse[i * shape.heads + head] = lse;
      double delta = 0;
      for (int64_t j = 0; j <= i; ++j) {
        p[j] = std::exp(p[j] - lse);
        delta += p[j] * dp[j];
      }
      for (int64_t j = 0; j <= i; ++j) {
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

// With the same kernels on one rank.
Result SingleRank(const Sequence& s, const Shape& shape) {
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
  const std::vector<AttentionSpan> spans = {{0, s.length, 0, s.length, true}};
  AttentionForward(queries(q), keys(k), keys(v), spans, shape.scale(), queries(out), lse_view,
                   stream);
  AttentionDelta(queries(out), queries(dout), delta_view, stream);
  AttentionBackward(queries(q), keys(k), keys(v), queries(dout), lse_view, delta_view, spans,
                    shape.scale(), queries(dq), keys(dk), keys(dv), stream);
  EXPECT_TRUE(stream.Synchronize().ok());
  auto widen = [](const std::vector<float>& x) { return std::vector<double>(x.begin(), x.end()); };
  return {widen(out), widen(lse), widen(dq), widen(dk), widen(dv), {}, {}};
}

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

void ExpectNear(const Result& got, const Result& expected, const Result& reference,
                const Shape& shape, DType wire, const std::string& what) {
  const double tolerance = wire == DType::kF32 ? Tolerance(reference) : kBf16WireTolerance;
  EXPECT_LT(RelativeError(got.out, expected.out), tolerance) << what << ": out";
  EXPECT_LT(RelativeError(got.lse, expected.lse, 1), tolerance) << what << ": lse";
  // Of a single token dq and dk are zero but for rounding: measured by the gradients together. What
  // all keys have in common, which shifts the scores, cancels in dq, and likewise in dk: measured
  // by the terms that cancel.
  const double gradients = 0.1 * (Norm(reference.dq) + Norm(reference.dk) + Norm(reference.dv));
  const double dq_scale = shape.shift == 0 ? gradients : Norm(reference.dq_terms);
  const double dk_scale = shape.shift == 0 ? gradients : Norm(reference.dk_terms);
  EXPECT_LT(RelativeError(got.dq, expected.dq, dq_scale), tolerance) << what << ": dq";
  EXPECT_LT(RelativeError(got.dk, expected.dk, dk_scale), tolerance) << what << ": dk";
  EXPECT_LT(RelativeError(got.dv, expected.dv), tolerance) << what << ": dv";
}

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

// What one member computes: its share of the ring, and sequences of its own in the rows after it.
struct Member {
  RingLayout layout;
  std::vector<int64_t> whole;  // lengths
  size_t first_whole = 0;      // index of the first of them among all sequences
  AttentionOptions options;

  int64_t rows() const { return std::accumulate(whole.begin(), whole.end(), layout.rows()); }
  std::vector<AttentionSpan> WholeSpans() const {
    std::vector<AttentionSpan> spans;
    int64_t row = layout.rows();
    for (int64_t length : whole) {
      spans.push_back({row, length, row, length, /*causal=*/true});
      row += length;
    }
    return spans;
  }
};

// Calls body(sequence, position, row) for every row of a member.
template <typename Body>
void ForRows(const Member& member, const Body& body) {
  const RingLayout& layout = member.layout;
  int64_t row = 0;
  for (size_t sequence = 0; sequence < layout.lengths.size(); ++sequence) {
    for (const TokenRange& range : ZigzagRanges(
             layout.lengths[sequence], static_cast<int>(layout.ranks.size()), layout.member)) {
      for (int64_t position = range.begin; position < range.end; ++position) {
        body(sequence, position, row++);
      }
    }
  }
  for (size_t i = 0; i < member.whole.size(); ++i) {
    for (int64_t position = 0; position < member.whole[i]; ++position) {
      body(member.first_whole + i, position, row++);
    }
  }
}

struct Bytes {
  int64_t forward = 0, backward = 0;
};

// One member's forward and backward pass; its rows of the results go to `results`, each row written
// by one rank.
absl::Status RunMember(const Member& member, const Shape& shape, int64_t gap,
                       const std::vector<Sequence>& sequences, Transport& transport, Device& device,
                       std::vector<Result>& results, Bytes& bytes) {
  const int64_t rows = member.rows();
  const int h = shape.heads, kvh = shape.kv_heads, d = shape.head_dim;
  Rows q(rows, h, d, gap), k(rows, kvh, d, gap), v(rows, kvh, d, gap), dout(rows, h, d, 0);
  Rows out(rows, h, d, 0), dq(rows, h, d, gap), dk(rows, kvh, d, gap), dv(rows, kvh, d, gap);
  std::vector<float> lse((rows + Rows::kExtra) * h, kNaN), delta = lse;
  const TensorView lse_view = TensorView::Of(lse.data(), {rows + Rows::kExtra, h});
  const TensorView delta_view = TensorView::Of(delta.data(), {rows + Rows::kExtra, h});
  ForRows(member, [&](size_t s, int64_t position, int64_t row) {
    const Sequence& from = sequences[s];
    auto copy = [&](const std::vector<float>& all, int64_t width, Rows& to) {
      std::copy_n(all.data() + position * width, width, to.row(row));
    };
    copy(from.q, shape.q_width(), q);
    copy(from.k, shape.kv_width(), k);
    copy(from.v, shape.kv_width(), v);
    copy(from.dout, shape.q_width(), dout);
    // Gradients are added to what is there.
    std::fill_n(dq.row(row), shape.q_width(), 0.0f);
    std::fill_n(dk.row(row), shape.kv_width(), 0.0f);
    std::fill_n(dv.row(row), shape.kv_width(), 0.0f);
  });
  const std::vector<AttentionSpan> whole = member.WholeSpans();
  Stream stream = device.CreateStream("ring");
  int64_t before = transport.exchanged_bytes();
  absl::Status status =
      RingAttentionForward(member.layout, whole, member.options, q.view(), k.view(), v.view(),
                           shape.scale(), out.view(), lse_view, transport, stream);
  if (!status.ok()) return status;
  bytes.forward = transport.exchanged_bytes() - before;
  before = transport.exchanged_bytes();
  if (rows > 0) {
    AttentionDelta(out.view().Slice(0, 0, rows), dout.view().Slice(0, 0, rows),
                   delta_view.Slice(0, 0, rows), stream);
  }
  status = RingAttentionBackward(member.layout, whole, member.options, q.view(), k.view(), v.view(),
                                 dout.view(), lse_view, delta_view, shape.scale(), dq.view(),
                                 dk.view(), dv.view(), transport, stream);
  if (!status.ok()) return status;
  bytes.backward = transport.exchanged_bytes() - before;
  status = stream.Synchronize();
  if (!status.ok()) return status;
  ForRows(member, [&](size_t s, int64_t position, int64_t row) {
    auto copy = [&](const float* from, int64_t width, std::vector<double>& all) {
      std::copy_n(from, width, all.data() + position * width);
    };
    copy(out.row(row), shape.q_width(), results[s].out);
    copy(lse.data() + row * h, h, results[s].lse);
    copy(dq.row(row), shape.q_width(), results[s].dq);
    copy(dk.row(row), shape.kv_width(), results[s].dk);
    copy(dv.row(row), shape.kv_width(), results[s].dv);
  });
  for (const Rows* each : {&out, &dq, &dk, &dv}) {
    if (!each->OnlyOwnWritten()) return absl::InternalError("wrote outside of the ring's rows");
  }
  // The stream is idle but may not have dropped its last piece of work: one more makes sure of it.
  stream.Launch("flush", [] {});
  status = stream.Synchronize();
  if (device.memory().current_bytes() != 0) return absl::InternalError("workspace still allocated");
  return status;
}

std::vector<Result> EmptyResults(const std::vector<Sequence>& sequences, const Shape& shape) {
  std::vector<Result> results;
  for (const Sequence& s : sequences) {
    auto unset = [](size_t count) { return std::vector<double>(count, kNaN); };
    results.push_back({unset(s.q.size()),
                       unset(s.length * shape.heads),
                       unset(s.q.size()),
                       unset(s.k.size()),
                       unset(s.v.size()),
                       {},
                       {}});
  }
  return results;
}

struct Ring {
  std::vector<int> ranks;
  std::vector<int64_t> lengths;
  Shape shape;
  int64_t gap = 0;
  std::vector<int64_t> whole = {};  // of each member, its own
  AttentionOptions options = {};

  Member member(int index) const {
    return {{ranks, index, lengths}, whole, lengths.size() + index * whole.size(), options};
  }
};

// Runs rings one after the other on `ranks` ranks, each rank those that it is a member of, and
// checks the results.
void CheckRings(int ranks, const std::vector<Ring>& rings, RankThreadOptions options = {}) {
  options.timeout = absl::Seconds(60);
  std::vector<std::vector<Sequence>> sequences;
  std::vector<std::vector<Result>> results;
  std::vector<std::vector<Bytes>> bytes;
  for (size_t i = 0; i < rings.size(); ++i) {
    sequences.emplace_back();
    std::vector<int64_t> lengths = rings[i].lengths;
    for (size_t member = 0; member < rings[i].ranks.size(); ++member) {
      lengths.insert(lengths.end(), rings[i].whole.begin(), rings[i].whole.end());
    }
    for (int64_t length : lengths) {
      sequences[i].push_back(
          RandomSequence(length, rings[i].shape, 100 * i + sequences[i].size() + 7));
    }
    results.push_back(EmptyResults(sequences[i], rings[i].shape));
    bytes.emplace_back(rings[i].ranks.size());
  }
  const absl::Status status = RunRanks(
      ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        for (size_t i = 0; i < rings.size(); ++i) {
          const auto place =
              std::find(rings[i].ranks.begin(), rings[i].ranks.end(), transport.rank());
          if (place == rings[i].ranks.end()) continue;
          const int member = static_cast<int>(place - rings[i].ranks.begin());
          absl::Status end =
              RunMember(rings[i].member(member), rings[i].shape, rings[i].gap, sequences[i],
                        transport, device, results[i], bytes[i][member]);
          if (!end.ok()) return end;
        }
        return absl::OkStatus();
      },
      options);
  ASSERT_TRUE(status.ok()) << status;
  for (size_t i = 0; i < rings.size(); ++i) {
    int64_t rows = 0;
    for (size_t index = 0; index < rings[i].ranks.size(); ++index) {
      const Member member = rings[i].member(static_cast<int>(index));
      rows += member.rows();
      const int64_t width = rings[i].shape.kv_width();
      EXPECT_EQ(bytes[i][index].forward, RingForwardBytes(member.layout, member.options, width));
      EXPECT_EQ(bytes[i][index].backward, RingBackwardBytes(member.layout, member.options, width));
    }
    int64_t tokens = 0;
    for (size_t s = 0; s < sequences[i].size(); ++s) {
      const Result expected = BruteForce(sequences[i][s], rings[i].shape);
      const std::string what = absl::StrCat("ring ", i, " of ", rings[i].ranks.size(), ", length ",
                                            sequences[i][s].length);
      const Shape& shape = rings[i].shape;
      const DType wire = rings[i].options.wire;
      ExpectNear(results[i][s], expected, expected, shape, wire, what + ", FP64");
      ExpectNear(results[i][s], SingleRank(sequences[i][s], shape), expected, shape, wire,
                 what + ", one rank");
      tokens += sequences[i][s].length;
    }
    EXPECT_EQ(rows, tokens);
  }
}

std::vector<int> Ascending(int members) {
  std::vector<int> ranks(members);
  for (int i = 0; i < members; ++i) ranks[i] = i;
  return ranks;
}

class RingAttention : public ::testing::TestWithParam<int> {};

TEST_P(RingAttention, AnyLength) {
  const int d = GetParam();
  std::vector<Ring> rings;
  for (int64_t length : {1, 2, 2 * d - 1, 2 * d, 2 * d + 1, 97, 128 + 64, 211}) {
    rings.push_back({Ascending(d), {length}, {}});
  }
  CheckRings(d, rings);
}

TEST_P(RingAttention, SeveralSequencesInOneRing) {
  const int d = GetParam();
  CheckRings(d, {{Ascending(d), {50, 2 * d + 1, 1, 2 * d - 1, 101, 3, 64}, {}},
                 {Ascending(d), {1, 1, 2}, {}},
                 {Ascending(d), {2 * d - 1, 120}, {}, /*gap=*/16}});
}

TEST_P(RingAttention, RandomDelaysAndBufferedSends) {
  const int d = GetParam();
  for (uint64_t seed = 0; seed < 4; ++seed) {
    RankThreadOptions options;
    options.network.max_delay = absl::Milliseconds(3);
    options.network.seed = seed;
    options.network.eager_bytes = seed % 2 == 0 ? 0 : 4096;
    options.threads_per_rank = 1 + static_cast<int>(seed / 2);
    CheckRings(d, {{Ascending(d), {77, 5, 2 * d + 1}, {}, /*gap=*/8}, {Ascending(d), {150}, {}}},
               options);
  }
}

TEST_P(RingAttention, GroupedQueries) {
  const int d = GetParam();
  CheckRings(d, {{Ascending(d), {83, 40}, {.heads = 8, .kv_heads = 1, .head_dim = 16}},
                 {Ascending(d), {90}, {.heads = 4, .kv_heads = 2, .head_dim = 8}, /*gap=*/4},
                 {Ascending(d), {60, 7}, {.heads = 3, .kv_heads = 3, .head_dim = 4}}});
}

TEST_P(RingAttention, ScoresFarFromZero) {
  const int d = GetParam();
  CheckRings(d, {{Ascending(d), {75, 9}, {.shift = -140}}, {Ascending(d), {75}, {.shift = 140}}});
}

TEST_P(RingAttention, OrderNeedNotAscend) {
  const int d = GetParam();
  std::vector<int> ranks = Ascending(d);
  std::mt19937_64 random(d);
  for (int i = 0; i < 3; ++i) {
    std::shuffle(ranks.begin(), ranks.end(), random);
    CheckRings(d, {{ranks, {61, 30}, {}}});
  }
}

INSTANTIATE_TEST_SUITE_P(Members, RingAttention, ::testing::Values(2, 3, 4, 5));

TEST(RingAttentionGroups, OverlapInOneRank) {
  // Rank 1 is in both rings, rank 3 in none.
  CheckRings(4, {{{1, 0}, {40, 11}, {}}, {{2, 1}, {53}, {}}, {{0, 2, 1}, {20}, {}}});
}

TEST(RingAttentionBeside, WholeSequencesAreComputedToo) {
  // Short ones, none but empty shares of the ring, and one that is cut between the ring's steps.
  for (int d : {2, 3, 5}) {
    CheckRings(d, {{Ascending(d), {90, 7}, {}, /*gap=*/8, /*whole=*/{5, 1, 40}},
                   {Ascending(d), {1}, {}, 0, {400}},
                   {Ascending(d), {150}, {.heads = 4, .kv_heads = 2}, 0, {200, 3, 260}}});
  }
}

TEST(RingAttentionWire, Bf16IsRoundedAndNoMore) {
  for (int d : {2, 3, 5}) {
    CheckRings(d, {{Ascending(d), {190, 33}, {.heads = 4, .kv_heads = 2}, 0, {70}, {DType::kBF16}},
                   {Ascending(d), {2 * d - 1}, {}, /*gap=*/4, {}, {DType::kBF16}}});
  }
}

TEST(RingAttentionBytes, AreTheLeastThereIs) {
  // d = 4, 80 tokens: parts of 10 tokens. Keys and values: 1.5 d (d - 1) parts. Gradients: (d - 1)
  // hops of two parts, one for member 0.
  const int64_t part = 10 * 2 * 16 * 4;
  for (DType wire : {DType::kF32, DType::kBF16}) {
    int64_t forward = 0, backward = 0;
    for (int member = 0; member < 4; ++member) {
      const RingLayout layout{{0, 1, 2, 3}, member, {80}};
      forward += RingForwardBytes(layout, {.wire = wire}, 16);
      backward += RingBackwardBytes(layout, {.wire = wire}, 16);
    }
    const int64_t keys_and_values = 18 * part * SizeOf(wire) / 4;
    EXPECT_EQ(forward, keys_and_values);
    EXPECT_EQ(backward, keys_and_values + 3 * 7 * part);
  }
}

TEST(RingAttentionFailure, AnAbortEndsTheRing) {
  RankThreadOptions options;
  options.timeout = absl::Seconds(30);
  std::vector<Sequence> sequences = {RandomSequence(90, {}, 1)};
  std::vector<Result> results = EmptyResults(sequences, {});
  std::vector<absl::Status> ends(3);
  const absl::Status status = RunRanks(
      3,
      [&](Transport& transport, Device& device) -> absl::Status {
        if (transport.rank() == 1) return absl::DataLossError("rank 1 has had enough");
        Bytes bytes;
        return ends[transport.rank()] =
                   RunMember({{{0, 1, 2}, transport.rank(), {90}}, {}, 1, {}}, {}, 0, sequences,
                             transport, device, results, bytes);
      },
      options);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  for (int rank : {0, 2}) EXPECT_TRUE(absl::IsUnavailable(ends[rank])) << ends[rank];
}

}  // namespace
}  // namespace longspan
