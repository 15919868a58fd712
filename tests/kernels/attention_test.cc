// Attention against a brute-force FP64 softmax, whose own gradient is checked by finite
// differences. Rows outside the spans and the gaps between strided rows hold NaN on input and must
// come back untouched.
#include "kernels/attention.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>
#include <memory>
#include <ostream>
#include <random>
#include <string>

#include "attention_reference.h"

namespace longspan {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kUntouched = 7;

struct Case {
  std::string name;
  int64_t heads, kv_heads, head_dim;
  std::vector<AttentionSpan> spans;
  float shift = 0;       // added to every score
  float sharpness = 1;   // factor of the scores
  double tolerance = 1;  // factor of the bounds on errors
  int64_t gap = 0;       // floats between rows
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// Causal documents one after the other.
std::vector<AttentionSpan> Documents(std::initializer_list<int64_t> lengths, int64_t begin = 0,
                                     bool causal = true) {
  std::vector<AttentionSpan> spans;
  for (int64_t length : lengths) {
    spans.push_back({begin, length, begin, length, causal});
    begin += length;
  }
  return spans;
}

std::vector<AttentionSpan> ManyDocuments() {
  std::mt19937 random(11);
  std::vector<AttentionSpan> spans;
  for (int64_t begin = 0; begin < 600;) {
    const int64_t length = 1 + static_cast<int64_t>(random() % 30);
    spans.push_back({begin, length, begin, length, true});
    begin += length;
  }
  return spans;
}

std::vector<AttentionSpan> Windowed(std::vector<AttentionSpan> spans, int64_t window) {
  for (AttentionSpan& span : spans) {
    span.window = window;
    if (span.causal) span.distance = span.key_count - span.query_count;
  }
  return spans;
}

std::vector<Case> Cases() {
  return {
      // Of one key alone the gradients of the scores are zero but for rounding.
      {"Window1", 2, 2, 64, Windowed(Documents({1, 16, 150}), 1), 0, 1, 4},
      {"Window2", 2, 1, 64, Windowed(Documents({3, 100, 40}), 2)},
      {"WindowJustBelowATile", 2, 2, 64, Windowed(Documents({300, 47}), 47)},
      {"WindowOfATile", 1, 1, 64, Windowed(Documents({300, 49, 1}), 48)},
      {"WindowAboveATile", 4, 2, 64, Windowed(Documents({300, 60}), 97)},
      {"WindowOfTheLength", 2, 2, 64, Windowed(Documents({130, 20}), 130)},
      {"WindowBeyondTheLength", 2, 2, 64, Windowed(Documents({130, 20}), 1000)},
      {"WindowOnAPrefix", 8, 1, 64, Windowed({{3, 40, 5, 170, true}, {50, 1, 180, 33, true}}, 30)},
      // Keys that ended before the queries began, as a ring's member gets them.
      {"WindowOnEarlierKeys", 2, 1, 64, {{0, 70, 4, 110, false, 100, 110}}},
      {"WindowOnFarKeys", 2, 2, 64, {{0, 90, 0, 40, false, 60, 95}, {90, 9, 50, 9, false, 5, 30}}},
      {"WindowLong", 2, 1, 16, Windowed(Documents({900, 20}), 130)},
      {"WindowLongPrefix", 1, 1, 16, {{0, 300, 0, 800, false, 500, 700}}},
      {"WindowHeadDim20", 3, 3, 20, Windowed(Documents({170, 20}), 33), 0, 1, 1, 3},
      {"OneToken", 2, 2, 64, Documents({1})},
      {"AroundThePanel", 2, 2, 64, Documents({15, 16, 17, 31, 33})},
      // 2d-1, 2d and 2d+1 tokens for groups of d = 2, 3 and 5.
      {"AroundTheZigzag", 2, 1, 64, Documents({3, 4, 5, 6, 7, 9, 10, 11})},
      {"SixtyFourModulo128", 2, 2, 64, Documents({192, 64, 320})},
      {"AroundTheTile", 1, 1, 64, Documents({47, 48, 49, 95, 96, 97, 129})},
      {"GroupedEightToOne", 8, 1, 64, Documents({130, 5, 77})},
      {"GroupedThreeToOne", 6, 2, 64, Documents({100, 40})},
      {"ScoresFarBelowZero", 2, 2, 64, Documents({150}), -110, 1, 30},
      {"ScoresFarAboveZero", 2, 2, 64, Documents({150}), 110, 1, 30},
      {"SharpScores", 2, 2, 64, Documents({200}), 0, 20, 30},
      {"ManyDocuments", 3, 1, 64, ManyDocuments()},
      {"KeyPrefix", 2, 2, 64, {{3, 40, 5, 170, true}, {50, 1, 180, 33, true}}},
      {"OneQueryAgainstACache", 8, 2, 64, {{0, 1, 0, 211, true}}},
      {"MoreQueriesThanKeys", 2, 2, 64, {{0, 90, 4, 37, true}, {90, 20, 50, 1, true}}},
      {"NoKeys", 2, 2, 64, {{1, 5, 0, 0, true}, {6, 20, 0, 30, true}, {30, 3, 30, 0, false}}},
      {"NoQueries", 2, 2, 64, {{0, 0, 0, 12, true}, {4, 20, 12, 30, true}}},
      {"Full", 2, 2, 64, {{0, 70, 0, 110, false}, {70, 20, 130, 7, false}}},
      // A ring step of the zigzag: two query parts against the same keys.
      {"SharedKeys", 4, 2, 64, {{0, 60, 3, 75, false}, {80, 75, 3, 75, true}}},
      {"PoisonAround", 2, 2, 64, {{17, 33, 40, 61, true}, {70, 50, 120, 50, true}}},
      {"StridedRows", 4, 2, 64, Documents({70, 50}), 0, 1, 1, 37},
      {"HeadDim1", 2, 1, 1, Documents({40, 20})},
      {"HeadDim8", 2, 2, 8, Documents({150, 20})},
      {"HeadDim20", 3, 3, 20, Documents({70, 20}), 0, 1, 1, 3},
      {"HeadDim80", 2, 1, 80, Documents({110, 20})},
      {"HeadDim128", 2, 2, 128, Documents({140, 60})},
      {"HeadDim256", 2, 1, 256, Documents({130})},
      // Long enough to be cut into parts on several threads.
      {"Long", 2, 1, 16, Documents({450, 20})},
      {"LongPrefix", 1, 1, 16, {{0, 150, 0, 600, true}, {150, 50, 0, 600, false}}},
  };
}

// One of q, k, ..., in rows of its own.
struct Tensor {
  Tensor(int64_t rows_in, int64_t heads_in, int64_t head_dim_in, int64_t gap, float fill)
      : rows(rows_in),
        heads(heads_in),
        head_dim(head_dim_in),
        stride(heads * head_dim + gap),
        values(std::max<int64_t>(rows, 1) * stride, fill) {}
  TensorView View() {
    return TensorView::Of(values.data(), {rows, stride})
        .Slice(1, 0, heads * head_dim)
        .Reshape({rows, heads, head_dim});
  }
  TensorView PerHead() {
    return TensorView::Of(values.data(), {rows, stride}).Slice(1, 0, heads * head_dim);
  }
  float& At(int64_t row, int64_t column) { return values[row * stride + column]; }
  std::vector<double> Doubles() const {
    std::vector<double> result;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < heads * head_dim; ++i) result.push_back(values[row * stride + i]);
    }
    return result;
  }
  int64_t rows, heads, head_dim, stride;
  std::vector<float> values;
};

// The inputs of a case, rows outside the spans being NaN, and the outputs, poisoned inside the
// spans.
struct Problem {
  explicit Problem(const Case& c) : spans(c.spans), query_used(1), key_used(1) {
    for (const AttentionSpan& span : spans) {
      query_rows = std::max(query_rows, span.query_begin + span.query_count + 2);
      key_rows = std::max(key_rows, span.key_begin + span.key_count + 2);
    }
    query_used.assign(query_rows, false);
    key_used.assign(key_rows, false);
    for (const AttentionSpan& span : spans) {
      std::fill_n(query_used.begin() + span.query_begin, span.query_count, true);
      // Keys outside of every query's window are as good as no keys: poisoned, and left alone.
      for (int64_t key = 0; key < span.key_count; ++key) {
        bool seen = span.window == 0;
        for (int64_t query = 0; query < span.query_count && !seen; ++query) {
          seen = span.distance + query - key < span.window &&
                 (!span.causal || key <= query + span.key_count - span.query_count);
        }
        if (seen) key_used[span.key_begin + key] = true;
      }
    }
    scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
    auto make = [&](bool query, float fill) {
      return std::make_unique<Tensor>(query ? query_rows : key_rows, query ? c.heads : c.kv_heads,
                                      c.head_dim, c.gap, fill);
    };
    q = make(true, kNaN), k = make(false, kNaN), v = make(false, kNaN), dout = make(true, kNaN);
    out = make(true, kUntouched), dq = make(true, kUntouched);
    dk = make(false, kUntouched), dv = make(false, kUntouched);
    auto per_head = [&] { return std::make_unique<Tensor>(query_rows, c.heads, 1, c.gap, kNaN); };
    lse = per_head(), delta = per_head();

    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    auto fill = [&](Tensor& x, const std::vector<bool>& used, float factor) {
      for (int64_t row = 0; row < x.rows; ++row) {
        for (int64_t i = 0; used[row] && i < x.heads * x.head_dim; ++i) {
          x.At(row, i) = factor * normal(random);
        }
      }
    };
    fill(*q, query_used, c.sharpness), fill(*k, key_used, 1), fill(*v, key_used, 1);
    fill(*dout, query_used, 1);
    // Dimension 0 carries the shift alone: a constant query times a constant key.
    for (int64_t row = 0; c.shift != 0 && row < query_rows; ++row) {
      for (int64_t h = 0; query_used[row] && h < c.heads; ++h) q->At(row, h * c.head_dim) = 10;
    }
    for (int64_t row = 0; c.shift != 0 && row < key_rows; ++row) {
      for (int64_t h = 0; key_used[row] && h < c.kv_heads; ++h) {
        k->At(row, h * c.head_dim) = c.shift / (10 * scale);
      }
    }
    // What gradients accumulate onto, and what out must overwrite.
    for (int64_t row = 0; row < query_rows; ++row) {
      for (int64_t i = 0; query_used[row] && i < c.heads * c.head_dim; ++i) {
        dq->At(row, i) = 0.5f;
        out->At(row, i) = kNaN;
      }
    }
    for (int64_t row = 0; row < key_rows; ++row) {
      for (int64_t i = 0; key_used[row] && i < c.kv_heads * c.head_dim; ++i) {
        dk->At(row, i) = -0.25f;
        dv->At(row, i) = 1;
      }
    }
  }

  reference::Attention Reference() const {
    return reference::Attention({query_rows, key_rows, q->heads, k->heads, q->head_dim, scale},
                                spans, q->Doubles(), k->Doubles(), v->Doubles());
  }
  void Forward(Stream& stream) {
    AttentionForward(q->View(), k->View(), v->View(), spans, scale, out->View(), lse->PerHead(),
                     stream);
    ASSERT_TRUE(stream.Synchronize().ok());
  }
  void Backward(Stream& stream) {
    AttentionDelta(out->View(), dout->View(), delta->PerHead(), stream);
    AttentionBackward(q->View(), k->View(), v->View(), dout->View(), lse->PerHead(),
                      delta->PerHead(), spans, scale, dq->View(), dk->View(), dv->View(), stream);
    ASSERT_TRUE(stream.Synchronize().ok());
  }

  std::vector<AttentionSpan> spans;
  int64_t query_rows = 1, key_rows = 1;
  std::vector<bool> query_used, key_used;
  float scale;
  std::unique_ptr<Tensor> q, k, v, dout, out, dq, dk, dv, lse, delta;
};

// Used rows of x are base + expected within `bound`, other rows and the gaps as they were.
void ExpectNear(const std::string& what, Tensor& x, const std::vector<bool>& used, double base,
                const std::vector<double>& expected, double bound) {
  const int64_t width = x.heads * x.head_dim;
  double worst = 0;
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t i = 0; i < x.stride; ++i) {
      const float actual = x.At(row, i);
      if (!used[row] || i >= width) {
        ASSERT_EQ(actual, kUntouched) << what << " row " << row << " is not ours to write";
        continue;
      }
      const double error = std::fabs(actual - base - expected[row * width + i]);
      ASSERT_LE(error, bound) << what << " row " << row << " column " << i << ": " << actual;
      worst = std::max(worst, error);
    }
  }
  testing::Test::RecordProperty(what, std::to_string(worst));
}

double Highest(const std::vector<double>& x) {
  double highest = 1;
  for (double value : x) {
    if (std::isfinite(value)) highest = std::max(highest, std::fabs(value));
  }
  return highest;
}

// Both passes of one device against the reference's results.
void CheckDevice(const Case& c, int threads, const std::vector<double>& out,
                 const std::vector<double>& lse, const reference::AttentionGradients& g) {
  SCOPED_TRACE(testing::Message() << threads << " threads");
  auto device = Device::OpenCpu(threads);
  Stream stream = device->CreateStream("test");
  Problem problem(c);
  problem.Forward(stream);
  ExpectNear("out", *problem.out, problem.query_used, 0, out, 2e-6 * c.tolerance);
  for (int64_t row = 0; row < problem.query_rows; ++row) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const float actual = problem.lse->At(row, h);
      if (!problem.query_used[row]) {
        ASSERT_TRUE(std::isnan(actual)) << "lse of a row outside the spans was written";
      } else if (std::isinf(lse[row * c.heads + h])) {
        ASSERT_EQ(actual, -kInfinity) << "row " << row << " sees no key";
      } else {
        ASSERT_NEAR(actual, lse[row * c.heads + h], 2e-6 * c.tolerance) << "lse, row " << row;
      }
    }
  }
  if (c.shift < 0) {
    EXPECT_LT(problem.lse->At(0, 0), -90);
  }
  problem.Backward(stream);
  auto bound = [&](const std::vector<double>& x) { return 2e-6 * c.tolerance * Highest(x); };
  ExpectNear("dq", *problem.dq, problem.query_used, 0.5, g.dq, bound(g.dq));
  ExpectNear("dk", *problem.dk, problem.key_used, -0.25, g.dk, bound(g.dk));
  ExpectNear("dv", *problem.dv, problem.key_used, 1, g.dv, bound(g.dv));
}

void CheckAgainstFp64(const Case& c, std::initializer_list<int> thread_counts) {
  const Problem problem(c);
  const reference::Attention reference = problem.Reference();
  std::vector<double> out(problem.query_rows * c.heads * c.head_dim, 0);
  std::vector<double> lse(problem.query_rows * c.heads, 0);
  reference.Forward(out, lse);
  const reference::AttentionGradients g = reference.Backward(problem.dout->Doubles());
  for (int threads : thread_counts) CheckDevice(c, threads, out, lse, g);
}

class AttentionTest : public testing::TestWithParam<Case> {};

TEST_P(AttentionTest, MatchesFp64) { CheckAgainstFp64(GetParam(), {1, 3}); }

TEST_P(AttentionTest, BitsDoNotDependOnChance) {
  Problem one(GetParam()), three(GetParam()), again(GetParam());
  auto single = Device::OpenCpu(1), several = Device::OpenCpu(3);
  Stream on_one = single->CreateStream("one"), on_three = several->CreateStream("three");
  auto bits = [](const Tensor& x) {
    return std::string(reinterpret_cast<const char*>(x.values.data()), x.values.size() * 4);
  };
  one.Forward(on_one), three.Forward(on_three), again.Forward(on_three);
  EXPECT_EQ(bits(*one.out), bits(*three.out));
  EXPECT_EQ(bits(*one.lse), bits(*three.lse));
  three.Backward(on_three), again.Backward(on_three);
  EXPECT_EQ(bits(*three.dq), bits(*again.dq));
  EXPECT_EQ(bits(*three.dk), bits(*again.dk));
  EXPECT_EQ(bits(*three.dv), bits(*again.dv));
}

INSTANTIATE_TEST_SUITE_P(Cases, AttentionTest, testing::ValuesIn(Cases()),
                         [](const auto& instance) { return instance.param.name; });

// Every instruction set that this machine can run, with panels of its own width.
TEST(AttentionTargetsTest, AllMatchFp64) {
  int tried = 0;
  const int64_t supported = hwy::SupportedTargets();
  for (int64_t rest = supported; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();  // chosen anew by the next call
    CheckAgainstFp64({"", 4, 2, 20, Documents({70, 33, 1}), 0, 1, 1, 5}, {1});
    CheckAgainstFp64({"", 2, 2, 64, {{0, 60, 0, 150, true}, {60, 9, 150, 70, false}}}, {1});
    ++tried;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
  EXPECT_GE(tried, 1);
}

TEST(AttentionReferenceTest, GradientMatchesFiniteDifferences) {
  const std::vector<AttentionSpan> spans = {{0, 4, 0, 6, true}, {4, 3, 6, 2, true}};
  std::mt19937 random(9);
  std::normal_distribution<double> normal;
  auto draw = [&](size_t count) {
    std::vector<double> x(count);
    for (double& value : x) value = normal(random);
    return x;
  };
  const reference::AttentionSizes sizes = {7, 8, 4, 2, 3, 0.7};
  reference::Attention attention(sizes, spans, draw(7 * 4 * 3), draw(8 * 2 * 3), draw(8 * 2 * 3));
  const std::vector<double> dout = draw(7 * 4 * 3);
  auto loss = [&] {
    std::vector<double> out(7 * 4 * 3, 0), lse(7 * 4, 0);
    attention.Forward(out, lse);
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += out[i] * dout[i];
    return sum;
  };
  const reference::AttentionGradients g = attention.Backward(dout);
  constexpr double kStep = 1e-5;
  auto check = [&](const char* what, std::vector<double>& x, const std::vector<double>& dx) {
    for (size_t i = 0; i < x.size(); ++i) {
      const double before = x[i];
      x[i] = before + kStep;
      const double above = loss();
      x[i] = before - kStep;
      const double below = loss();
      x[i] = before;
      ASSERT_NEAR((above - below) / (2 * kStep), dx[i], 1e-8) << what << " " << i;
    }
  };
  check("dq", attention.q_, g.dq);
  check("dk", attention.k_, g.dk);
  check("dv", attention.v_, g.dv);
}

// What a ring does: blocks of keys one by one, merged; then the backward pass of each block with
// the global lse.
TEST(AttentionMergeTest, BlocksMakeTheWhole) {
  Problem whole({"", 4, 2, 64, {{0, 60, 0, 200, true}}});
  auto device = Device::OpenCpu(2);
  Stream stream = device->CreateStream("test");
  whole.Forward(stream);
  whole.Backward(stream);

  Problem ring({"", 4, 2, 64, {{0, 60, 0, 200, true}}});
  const std::vector<AttentionSpan> blocks = {{0, 60, 140, 60, true},
                                             {0, 60, 0, 100, false},
                                             {0, 60, 0, 0, false},
                                             {0, 60, 100, 40, false}};
  Tensor out(ring.query_rows, 4, 64, 0, 0), lse(ring.query_rows, 4, 1, 0, -kInfinity);
  for (const AttentionSpan& block : blocks) {
    ring.spans = {block};
    ring.Forward(stream);
    MergeAttention(ring.out->View().Slice(0, 0, 60), ring.lse->PerHead().Slice(0, 0, 60),
                   out.View().Slice(0, 0, 60), lse.PerHead().Slice(0, 0, 60), stream);
  }
  ASSERT_TRUE(stream.Synchronize().ok());
  auto near = [](Tensor& a, Tensor& b, int64_t rows, double bound, const char* what) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < a.heads * a.head_dim; ++i) {
        ASSERT_NEAR(a.At(row, i), b.At(row, i), bound) << what << " row " << row;
      }
    }
  };
  near(out, *whole.out, 60, 2e-6, "out");
  near(lse, *whole.lse, 60, 2e-6, "lse");

  *ring.out = out;
  *ring.lse = lse;
  AttentionDelta(ring.out->View(), ring.dout->View(), ring.delta->PerHead(), stream);
  for (const AttentionSpan& block : blocks) {
    AttentionBackward(ring.q->View(), ring.k->View(), ring.v->View(), ring.dout->View(),
                      ring.lse->PerHead(), ring.delta->PerHead(), {block}, ring.scale,
                      ring.dq->View(), ring.dk->View(), ring.dv->View(), stream);
  }
  ASSERT_TRUE(stream.Synchronize().ok());
  near(*ring.dq, *whole.dq, 60, 5e-6, "dq");
  near(*ring.dk, *whole.dk, 200, 5e-6, "dk");
  near(*ring.dv, *whole.dv, 200, 5e-6, "dv");
}

TEST(AttentionMergeTest, SidesWithoutKeys) {
  auto device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  // Rows: both empty; block empty (as FlashAttention-2 says it); running empty; both full.
  std::vector<float> block_out = {kNaN, kNaN, 4, 6}, block_lse = {kInfinity, kInfinity, -95, -100};
  std::vector<float> out = {kNaN, 3, kNaN, 2}, lse = {-kInfinity, 1, -kInfinity, -100};
  MergeAttention(TensorView::Of(block_out.data(), {4, 1, 1}),
                 TensorView::Of(block_lse.data(), {4, 1}), TensorView::Of(out.data(), {4, 1, 1}),
                 TensorView::Of(lse.data(), {4, 1}), stream);
  ASSERT_TRUE(stream.Synchronize().ok());
  EXPECT_EQ(out[0], 0);
  EXPECT_EQ(lse[0], -kInfinity);
  EXPECT_EQ(out[1], 3);
  EXPECT_EQ(lse[1], 1);
  EXPECT_EQ(out[2], 4);
  EXPECT_EQ(lse[2], -95);
  EXPECT_FLOAT_EQ(out[3], 4);
  EXPECT_FLOAT_EQ(lse[3], -100 + std::log(2.0f));
}

// A window that reaches everything gives the bits of none.
TEST(AttentionForwardTest, AWideWindowChangesNoBit) {
  auto device = Device::OpenCpu(3);
  Stream stream = device->CreateStream("test");
  Problem without({"", 4, 2, 32, Documents({500, 30})});
  Problem with({"", 4, 2, 32, Windowed(Documents({500, 30}), 500)});
  for (Problem* problem : {&without, &with}) {
    problem->Forward(stream);
    problem->Backward(stream);
  }
  for (auto member : {&Problem::out, &Problem::dq, &Problem::dk, &Problem::dv}) {
    EXPECT_EQ((without.*member)->values, (with.*member)->values);
  }
}

// A model that has diverged must be seen to.
TEST(AttentionForwardTest, NaNShows) {
  auto device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  for (int which = 0; which < 3; ++which) {
    Problem problem({"", 1, 1, 16, Documents({20, 20})});
    (which == 0 ? problem.q : which == 1 ? problem.k : problem.v)->At(12, 3) = kNaN;
    problem.Forward(stream);
    EXPECT_TRUE(std::isnan(problem.out->At(12, 3))) << "input " << which;
    for (int64_t row = 20; row < 40; ++row) {
      EXPECT_FALSE(std::isnan(problem.out->At(row, 3))) << "input " << which;
    }
  }
}

TEST(AttentionBackwardTest, MemoryIsLinearInLength) {
  constexpr int64_t kLength = 3000, kHeadDim = 4;
  Problem problem({"", 1, 1, kHeadDim, Documents({kLength})});
  auto device = Device::OpenCpu(3);
  Stream stream = device->CreateStream("test");
  problem.Forward(stream);
  EXPECT_EQ(device->memory().peak_bytes(), 0);
  problem.Backward(stream);
  // At most 9 parts for 3 threads, the first without memory of its own.
  EXPECT_GT(device->memory().peak_bytes(), 0);
  EXPECT_LE(device->memory().peak_bytes(), 8 * kLength * kHeadDim * 4);
  EXPECT_EQ(device->memory().current_bytes(), 0);
}

TEST(AttentionDeathTest, RefusesSpansThatOverlap) {
  auto device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  Problem problem({"", 1, 1, 8, {{0, 5, 0, 5, true}, {4, 5, 5, 5, true}}});
  EXPECT_DEATH(problem.Forward(stream), "overlap in query rows");
  Problem outside({"", 1, 1, 8, {{0, 5, 0, 5, true}}});
  outside.spans[0].key_count = 50;
  EXPECT_DEATH(outside.Forward(stream), "outside the tensor");
  Problem shared({"", 1, 1, 8, {{0, 5, 0, 5, true}, {5, 5, 3, 5, true}}});
  EXPECT_DEATH(shared.Backward(stream), "share some keys");
  Problem distance({"", 1, 1, 8, {{0, 5, 0, 9, true, 3, 2}}});
  EXPECT_DEATH(distance.Forward(stream), "distance");
}

}  // namespace
}  // namespace longspan
