// Runs the table of operator_cases.h on the CPU: agreement, equal bits on any number of threads,
// finite differences. Then what does not fit a table: aliasing, extreme values, broken ids, empty
// tensors.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/activation.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/normalization.h"
#include "kernels/optimizer_pass.h"
#include "kernels/rope.h"
#include "operator_cases.h"

namespace longspan {
namespace {

using reference::Doubles;

void RunOnCpu(const OperatorCase& c, int threads, CaseOperands& operands) {
  const std::unique_ptr<Device> device = Device::OpenCpu(threads);
  Stream stream = device->CreateStream("test");
  c.run(operands.Views(), stream);
  ASSERT_TRUE(stream.Synchronize().ok());
}

bool IsResult(Role role) { return role != Role::kInput && role != Role::kScratch; }

class OperatorTest : public testing::TestWithParam<OperatorCase> {};

TEST_P(OperatorTest, AgreesWithReference) {
  const OperatorCase& c = GetParam();
  CaseOperands operands(c);
  RunOnCpu(c, 1, operands);
  std::vector<Doubles> wanted = operands.initial();
  c.reference(wanted);
  for (size_t k = 0; k < c.operands.size(); ++k) {
    const Operand& operand = c.operands[k];
    if (IsResult(operand.role)) {
      EXPECT_EQ(Disagreement(operand.name, operands.Values(k), wanted[k], c.tolerance), "");
    }
  }
  EXPECT_TRUE(operands.PaddingIntact());
}

TEST_P(OperatorTest, GivesTheSameOnAnyNumberOfThreads) {
  const OperatorCase& c = GetParam();
  CaseOperands one(c), three(c);
  RunOnCpu(c, 1, one);
  RunOnCpu(c, 3, three);
  for (size_t k = 0; k < c.operands.size(); ++k) {
    const Operand& operand = c.operands[k];
    if (operand.role == Role::kScratch) continue;
    if (c.equal_bits) {
      EXPECT_TRUE(one.storage()[k] == three.storage()[k]) << operand.name;
    } else {
      EXPECT_EQ(Disagreement(operand.name, three.Values(k), one.Values(k), c.tolerance), "");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, OperatorTest, testing::ValuesIn(OperatorCases()),
                         testing::PrintToStringParamName());

// Each quotient costs two forward passes in plain loops: large cases leave it to the reference.
constexpr int64_t kMostElements = 40000;

std::vector<OperatorCase> CasesWithDerivatives() {
  std::vector<OperatorCase> cases;
  for (OperatorCase& c : OperatorCases()) {
    int64_t most = 0;
    for (const Operand& operand : c.operands) {
      int64_t elements = 1;
      for (int64_t extent : operand.shape) elements *= extent;
      most = std::max(most, elements);
    }
    if (!c.derivatives.empty() && most <= kMostElements) cases.push_back(std::move(c));
  }
  return cases;
}

class GradientTest : public testing::TestWithParam<OperatorCase> {};

TEST_P(GradientTest, IsTheDifferenceQuotientOfTheForwardPass) {
  const OperatorCase& c = GetParam();
  CaseOperands operands(c);
  const std::vector<Doubles> initial = operands.initial();
  RunOnCpu(c, 3, operands);
  std::mt19937 random(7);
  for (const Derivative& derivative : c.derivatives) {
    const Operand& operand = c.operands[derivative.gradient];
    Doubles gradient = operands.Values(derivative.gradient);
    if (operand.role == Role::kAccumulated) {
      for (size_t i = 0; i < gradient.size(); ++i) gradient[i] -= initial[derivative.gradient][i];
    }
    const size_t elements = initial[derivative.input].size();
    ASSERT_EQ(gradient.size(), elements);
    double squares = 0;
    for (double g : gradient) squares += g * g;
    const double typical = std::sqrt(squares / elements);
    for (size_t sample = 0; sample < std::min<size_t>(8, elements); ++sample) {
      // A few elements here and there, and the last, which a vector loop handles apart.
      const size_t at = sample == 0 ? elements - 1 : random() % elements;
      const double step = 1e-4;
      std::vector<Doubles> moved = initial;
      moved[derivative.input][at] += step;
      const double above = c.loss(moved);
      moved[derivative.input][at] -= 2 * step;
      const double below = c.loss(moved);
      const double quotient = (above - below) / (2 * step);
      EXPECT_NEAR(gradient[at], quotient, 1e-4 * (std::abs(quotient) + typical) + 2e-6)
          << operand.name << "[" << at << "]";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, GradientTest, testing::ValuesIn(CasesWithDerivatives()),
                         testing::PrintToStringParamName());

class OperatorsTest : public testing::Test {
 protected:
  std::unique_ptr<Device> device_ = Device::OpenCpu(2);
  Stream stream_ = device_->CreateStream("test");
};

std::vector<float> Normal(int64_t count, unsigned seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

TEST_F(OperatorsTest, ActivationsWorkInPlace) {
  const int64_t rows = 9, width = 37;
  const std::vector<float> dy = Normal(rows * width, 1), gate_up = Normal(rows * 2 * width, 2);
  std::vector<float> apart(rows * 2 * width), in_place = gate_up;
  const TensorView dy_view = TensorView::Of(dy.data(), {rows, width});
  const TensorView in_place_view = TensorView::Of(in_place.data(), {rows, 2 * width});
  SwiGluBackward(dy_view, TensorView::Of(gate_up.data(), {rows, 2 * width}),
                 TensorView::Of(apart.data(), {rows, 2 * width}), stream_);
  SwiGluBackward(dy_view, in_place_view, in_place_view, stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  EXPECT_EQ(apart, in_place);

  const std::vector<float> x = Normal(rows * width, 3);
  std::vector<float> y(rows * width), over_x = x, over_dy = dy, dx(rows * width);
  const auto view = [&](const std::vector<float>& v) {
    return TensorView::Of(v.data(), {rows, width});
  };
  GeluForward(view(x), view(y), stream_);
  GeluForward(view(over_x), view(over_x), stream_);
  GeluBackward(view(dy), view(x), view(dx), stream_);
  GeluBackward(view(over_dy), view(x), view(over_dy), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  EXPECT_EQ(y, over_x);
  EXPECT_EQ(dx, over_dy);
  over_x = x;
  GeluBackward(view(dy), view(over_x), view(over_x), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  EXPECT_EQ(dx, over_x);
}

TEST_F(OperatorsTest, ActivationsHaveTheirLimitsAtExtremes) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x = {-1e4f, -200, -90, 0, 90, 200, 1e4f, nan};
  std::vector<float> y(x.size());
  GeluForward(TensorView::Of(x.data(), {1, 8}), TensorView::Of(y.data(), {1, 8}), stream_);
  std::vector<float> gate_up = x, z(x.size());
  gate_up.insert(gate_up.end(), x.size(), 1.0f);
  SwiGluForward(TensorView::Of(gate_up.data(), {1, 16}), TensorView::Of(z.data(), {1, 8}), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  for (const std::vector<float>* result : {&y, &z}) {
    for (int i = 0; i < 4; ++i) EXPECT_NEAR((*result)[i], 0, 1e-30);
    for (int i = 4; i < 7; ++i) EXPECT_EQ((*result)[i], x[i]);
    EXPECT_TRUE(std::isnan((*result)[7]));
  }
}

// One row of logits through the operator: the hidden state picks a column of the weights.
float LossOf(const std::vector<float>& logits, int target, Stream& stream) {
  const int64_t vocabulary = logits.size();
  const float hidden = 1;
  const int32_t id = target;
  float loss = 0;
  std::vector<float> workspace(vocabulary);
  LinearCrossEntropy(TensorView::Of(&hidden, {1, 1}),
                     TensorView::Of(logits.data(), {vocabulary, 1}), TensorView::Of(&id, {1}),
                     TensorView::Of(&loss, {1}), TensorView(), TensorView(),
                     TensorView::Of(workspace.data(), {1, vocabulary}), stream);
  EXPECT_TRUE(stream.Synchronize().ok());
  return loss;
}

TEST_F(OperatorsTest, CrossEntropyOfLargeLogitsIsFinite) {
  EXPECT_FLOAT_EQ(LossOf({1000, 990, 0, 0, 0, 0, 0, 0, 0}, 1, stream_),
                  10 + std::log1p(std::exp(-10.0)));
  EXPECT_FLOAT_EQ(LossOf({-1000, -1000}, 0, stream_), std::log(2.0));
}

TEST_F(OperatorsTest, CrossEntropyPassesNaNOn) {
  // In a logit that is not the target's, within a vector and in the rest of the row.
  for (int at : {0, 20, 34}) {
    std::vector<float> logits = Normal(35, 4);
    logits[at] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(LossOf(logits, 7, stream_))) << at;
    logits[at] = std::numeric_limits<float>::infinity();
    EXPECT_TRUE(std::isnan(LossOf(logits, 7, stream_))) << at;
  }
}

TEST_F(OperatorsTest, CrossEntropyNeedsNoMoreThanAChunkOfLogits) {
  EXPECT_EQ(CrossEntropyChunkRows(4096), 1024);
  EXPECT_EQ(CrossEntropyChunkRows(1 << 20), 64);
}

TEST_F(OperatorsTest, RopeKeepsNormsAndTurnsBack) {
  const int64_t rows = 33, heads = 2, head_dim = 64;
  const std::vector<float> before = Normal(rows * heads * head_dim, 5);
  std::vector<float> x = before;
  std::vector<int32_t> positions(rows);
  for (int64_t r = 0; r < rows; ++r) positions[r] = static_cast<int32_t>(r * 65521);
  const TensorView view = TensorView::Of(x.data(), {rows, heads, head_dim});
  const TensorView position_view = TensorView::Of(positions.data(), {rows});
  RopeForward(view, position_view, 10000.0, stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  EXPECT_NE(x, before);
  RopeBackward(view, position_view, 10000.0, stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], before[i], 1e-6);
}

TEST_F(OperatorsTest, LayerNormKeepsDigitsBesideALargeMean) {
  const int64_t width = 256;
  std::vector<float> x = Normal(width, 6), weight(width, 1), bias(width, 0), y(width);
  for (float& value : x) value += 4096;
  float mean = 0, rstd = 0;
  LayerNormForward(TensorView::Of(x.data(), {1, width}), TensorView::Of(weight.data(), {width}),
                   TensorView::Of(bias.data(), {width}), 1e-5f,
                   TensorView::Of(y.data(), {1, width}), TensorView::Of(&mean, {1}),
                   TensorView::Of(&rstd, {1}), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  const Doubles wide(x.begin(), x.end()), ones(width, 1), zeros(width, 0);
  Doubles wanted(width), wanted_mean(1), wanted_rstd(1);
  reference::LayerNormForward(wide, ones, zeros, 1e-5, wanted, wanted_mean, wanted_rstd);
  for (int64_t i = 0; i < width; ++i) ASSERT_NEAR(y[i], wanted[i], 1e-3);
  EXPECT_NEAR(rstd, wanted_rstd[0], 1e-5);
}

TEST_F(OperatorsTest, CopyAndZeroServeOtherDtypes) {
  std::vector<int32_t> ids = {1, 2, 3, 4, 5}, copy(5);
  std::vector<double> sums = {1, 2, 3};
  Copy(TensorView::Of(ids.data(), {5}), TensorView::Of(copy.data(), {5}), stream_);
  Zero(TensorView::Of(sums.data(), {3}), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  EXPECT_EQ(copy, ids);
  EXPECT_EQ(sums, std::vector<double>(3, 0.0));
}

TEST_F(OperatorsTest, CopyMovesBetweenDifferentStrides) {
  std::vector<float> wide = Normal(5 * 10, 8), narrow(5 * 4, -1);
  Copy(TensorView::Of(wide.data(), {5, 10}).Slice(1, 3, 7), TensorView::Of(narrow.data(), {5, 4}),
       stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  for (int r = 0; r < 5; ++r) {
    for (int c = 0; c < 4; ++c) ASSERT_EQ(narrow[r * 4 + c], wide[r * 10 + 3 + c]);
  }
}

TEST_F(OperatorsTest, ConvertRoundsToTheNearestBf16TiesToEven) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // 1 + 2^-8 lies between 1 and 1 + 2^-7, 1 + 3 * 2^-8 between that and 1 + 2^-6.
  std::vector<float> x = {1.0f, 1.00390625f, 1.01171875f, 1.00390637f, -1.00390625f, 3.4e38f,
                          inf,  -inf,        0.0f,        -0.0f,       1e-40f,       nan};
  const std::vector<float> wanted = {1.0f, 1.0f, 1.015625f, 1.0078125f, -1.0f,  inf,
                                     inf,  -inf, 0.0f,      -0.0f,      1e-40f, nan};
  std::vector<uint16_t> narrow(x.size());
  std::vector<float> back(x.size());
  const TensorView bf16(narrow.data(), DType::kBF16, {static_cast<int64_t>(x.size())});
  Convert(TensorView::Of(x.data(), {static_cast<int64_t>(x.size())}), bf16, stream_);
  Convert(bf16, TensorView::Of(back.data(), {static_cast<int64_t>(x.size())}), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  for (size_t i = 0; i + 1 < x.size(); ++i) {
    if (std::abs(x[i]) < 1e-38f && x[i] != 0) {
      EXPECT_NEAR(back[i], x[i], 1e-40f) << i;  // subnormal
    } else {
      EXPECT_EQ(back[i], wanted[i]) << i;
    }
    EXPECT_EQ(std::signbit(back[i]), std::signbit(x[i])) << i;
  }
  EXPECT_TRUE(std::isnan(back.back()));
}

TEST_F(OperatorsTest, ConvertMovesBetweenStridesAndRoundsEveryElement) {
  std::vector<float> wide = Normal(300 * 10, 8), back(300 * 10, -1);
  std::vector<uint16_t> narrow(300 * 4);
  const TensorView bf16(narrow.data(), DType::kBF16, {300, 4});
  Convert(TensorView::Of(wide.data(), {300, 10}).Slice(1, 3, 7), bf16, stream_);
  Convert(bf16, TensorView::Of(back.data(), {300, 10}).Slice(1, 3, 7), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  for (int r = 0; r < 300; ++r) {
    for (int c = 0; c < 10; ++c) {
      const float value = wide[r * 10 + c], got = back[r * 10 + c];
      if (c < 3 || c >= 7) {
        ASSERT_EQ(got, -1);
      } else {
        ASSERT_LE(std::abs(got - value), std::ldexp(std::abs(value), -8)) << value;
      }
    }
  }
}

TEST_F(OperatorsTest, EmptyTensorsAreLeftAlone) {
  float weight = 1, dweight = 5;
  double statistics[3] = {1, 2, 3};
  const TensorView none = TensorView::Of(&weight, {0, 1}), no_row = TensorView::Of(&weight, {0});
  const TensorView one = TensorView::Of(&weight, {1});
  RmsNormForward(none, one, 1e-5f, none, no_row, stream_);
  RmsNormBackward(none, none, one, no_row, none, TensorView::Of(&dweight, {1}), stream_);
  BiasBackward(none, TensorView::Of(&dweight, {1}), stream_);
  Add(none, none, stream_);
  Zero(none, stream_);
  AccumulateGradientStatistics(no_row, TensorView::Of(statistics, {3}), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  EXPECT_EQ(dweight, 5);
  EXPECT_EQ(statistics[2], 3);
}

TEST_F(OperatorsTest, AdamWLeavesPaddingAtZero) {
  std::vector<float> zeros[4];
  for (auto& vector : zeros) vector.assign(64, 0.0f);
  const auto view = [&](int i) { return TensorView::Of(zeros[i].data(), {64}); };
  for (int step = 1; step <= 3; ++step)
    AdamWUpdate({.rate = 0.1, .weight_decay = 0.1, .step = step}, view(0), view(1), view(2),
                view(3), stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  for (const auto& vector : zeros) EXPECT_EQ(vector, std::vector<float>(64, 0.0f));
}

// Word by word, from the definition in content_sum.h.
uint64_t PlainContentSum(const std::vector<float>& values, int64_t position) {
  const auto mixed = [](uint64_t n) {
    uint64_t z = (n + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  };
  uint64_t sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t at = static_cast<uint64_t>(position) + i;
    sum += std::bit_cast<uint32_t>(values[i]) * (mixed(1024 + at / 1024) | 1) *
           ((mixed(at % 1024) >> 32) | 1);
  }
  return sum;
}

// Of vectors of several tasks that begin anywhere, on any number of threads, what is written is the
// same as without.
TEST(OptimizerPassTest, TellsTheContentSumsOfWhatItWrote) {
  constexpr int64_t kCount = 100'003, kPosition = 777;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> gradient(kCount);
  for (float& g : gradient) g = normal(random);
  for (const int threads : {1, 3}) {
    const std::unique_ptr<Device> device = Device::OpenCpu(threads);
    Stream stream = device->CreateStream("test");
    const auto view = [&](std::vector<float>& values) {
      return TensorView::Of(values.data(), {kCount});
    };
    std::vector<std::vector<float>> with(3, gradient), without = with;
    for (float& v : with[2]) v = std::abs(v);
    without[2] = with[2];
    std::vector<uint64_t> sums = {10, 20, 30};
    const AdamWParameters adamw{.rate = 1e-2, .weight_decay = 0.1};
    AdamWUpdate(adamw, view(gradient), view(with[0]), view(with[1]), view(with[2]), stream,
                TensorView(), {TensorView::Of(sums.data(), {3}), kPosition});
    AdamWUpdate(adamw, view(gradient), view(without[0]), view(without[1]), view(without[2]),
                stream);
    ASSERT_TRUE(stream.Synchronize().ok());
    EXPECT_EQ(with, without);
    for (size_t k = 0; k < 3; ++k) {
      EXPECT_EQ(sums[k], 10 * (k + 1) + PlainContentSum(with[k], kPosition)) << k;
    }

    const SgdParameters sgd{.rate = 1e-2};
    sums = {1, 2};
    SgdUpdate(sgd, view(gradient), view(with[0]), view(with[1]), stream,
              {TensorView::Of(sums.data(), {2}), kPosition});
    SgdUpdate(sgd, view(gradient), view(without[0]), view(without[1]), stream);
    ASSERT_TRUE(stream.Synchronize().ok());
    EXPECT_EQ(with, without);
    for (size_t k = 0; k < 2; ++k) {
      EXPECT_EQ(sums[k], k + 1 + PlainContentSum(with[k], kPosition)) << k;
    }
  }
}

// Each statement opens its own device: the process that dies has threads of its own.
void LookUp(int32_t id) {
  const std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  float table[2] = {0, 0}, out = 0;
  EmbeddingForward(TensorView::Of(&id, {1}), TensorView::Of(table, {2, 1}), false,
                   TensorView::Of(&out, {1, 1}), stream);
  (void)stream.Synchronize();
}

void LoseOn(int32_t target) {
  const std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  LossOf({0, 0}, target, stream);
}

void AddDifferentShapes() {
  const std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  float x[4] = {};
  Add(TensorView::Of(x, {4}), TensorView::Of(x, {3}), stream);
}

using OperatorsDeathTest = OperatorsTest;

TEST_F(OperatorsDeathTest, BrokenCallsStopWithThePlace) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(LookUp(2), "embedding.cc.*embedding id outside the table");
  EXPECT_DEATH(LookUp(-1), "embedding id outside the table");
  EXPECT_DEATH(LoseOn(2), "target id outside the vocabulary");
  EXPECT_DEATH(AddDifferentShapes(), "elementwise.cc.*shapes differ");
}

}  // namespace
}  // namespace longspan
