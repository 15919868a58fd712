// Gemm against a plain FP64 product: all transposes, strided rows, alpha and beta, on 1 and 3
// threads.
#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace longspan {
namespace {

// A matrix inside wider rows; what lies between the rows is NaN.
struct Matrix {
  Matrix(int64_t rows_in, int64_t columns_in, int64_t stride_in, std::mt19937& random)
      : rows(rows_in),
        columns(columns_in),
        stride(stride_in),
        values(rows_in * stride_in, std::numeric_limits<float>::quiet_NaN()) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) values[i * stride + j] = uniform(random);
    }
  }
  TensorView View() { return TensorView::Of(values.data(), {rows, stride}).Slice(1, 0, columns); }
  double At(int64_t i, int64_t j) const { return values[i * stride + j]; }

  int64_t rows, columns, stride;
  std::vector<float> values;
};

struct Shape {
  int64_t m, n, k;
};

void CheckProduct(Stream& stream, Shape shape, bool a_across, bool b_across, float alpha,
                  float beta, int64_t padding) {
  SCOPED_TRACE(testing::Message() << shape.m << "x" << shape.n << "x" << shape.k << " transposes "
                                  << a_across << b_across << " alpha " << alpha << " beta " << beta
                                  << " padding " << padding);
  std::mt19937 random(7);
  auto make = [&](int64_t rows, int64_t columns) {
    return Matrix(rows, columns, columns + padding, random);
  };
  Matrix a = a_across ? make(shape.k, shape.m) : make(shape.m, shape.k);
  Matrix b = b_across ? make(shape.n, shape.k) : make(shape.k, shape.n);
  Matrix c = make(shape.m, shape.n);
  if (beta == 0) c.values.assign(c.values.size(), std::numeric_limits<float>::quiet_NaN());
  const Matrix before = c;
  Gemm(a_across ? Transpose::kYes : Transpose::kNo, b_across ? Transpose::kYes : Transpose::kNo,
       alpha, a.View(), b.View(), beta, c.View(), stream);
  ASSERT_TRUE(stream.Synchronize().ok());
  for (int64_t i = 0; i < shape.m; ++i) {
    for (int64_t j = 0; j < c.stride; ++j) {
      if (j >= shape.n) {
        ASSERT_TRUE(std::isnan(c.values[i * c.stride + j])) << "wrote between rows";
        continue;
      }
      double sum = 0;
      for (int64_t l = 0; l < shape.k; ++l) {
        sum += (a_across ? a.At(l, i) : a.At(i, l)) * (b_across ? b.At(j, l) : b.At(l, j));
      }
      const double expected = alpha * sum + (beta == 0 ? 0 : beta * before.At(i, j));
      ASSERT_NEAR(c.At(i, j), expected, 1e-6 * (4 + std::sqrt(static_cast<double>(shape.k))))
          << "at (" << i << ", " << j << ")";
    }
  }
}

class GemmTest : public testing::TestWithParam<int> {};

TEST_P(GemmTest, MatchesFp64) {
  auto device = Device::OpenCpu(GetParam());
  Stream stream = device->CreateStream("test");
  for (Shape shape : {Shape{1, 1, 1}, Shape{1, 300, 700}, Shape{33, 17, 5}, Shape{200, 96, 64},
                      Shape{384, 100, 130}, Shape{5, 7, 0}}) {
    for (int transposes = 0; transposes < 4; ++transposes) {
      for (int64_t padding : {0, 5}) {
        if (padding == 0 && shape.k == 0) continue;  // rows of width 0 need a stride of their own
        CheckProduct(stream, shape, transposes & 1, transposes & 2, 1, 0, padding);
        CheckProduct(stream, shape, transposes & 1, transposes & 2, 0.5f, 1, padding);
      }
    }
  }
  CheckProduct(stream, {65, 65, 65}, false, false, -2, 0.25f, 0);
  CheckProduct(stream, {65, 65, 65}, false, false, 0, 0, 3);
}

TEST_P(GemmTest, EmptyResultTouchesNothing) {
  auto device = Device::OpenCpu(GetParam());
  Stream stream = device->CreateStream("test");
  std::vector<float> a(12, 1), b(12, 1);
  float guard = 3;
  Gemm(Transpose::kNo, Transpose::kNo, 1, TensorView::Of(a.data(), {0, 4}),
       TensorView::Of(b.data(), {4, 3}), 0, TensorView::Of(&guard, {0, 3}), stream);
  Gemm(Transpose::kNo, Transpose::kNo, 1, TensorView::Of(a.data(), {3, 4}),
       TensorView::Of(b.data(), {4, 0}), 0, TensorView::Of(&guard, {3, 0}), stream);
  ASSERT_TRUE(stream.Synchronize().ok());
  EXPECT_EQ(guard, 3);
}

// As a rank without tokens has it: the epilogue remains.
TEST_P(GemmTest, EpiloguesOfAnEmptySum) {
  auto device = Device::OpenCpu(GetParam());
  Stream stream = device->CreateStream("test");
  float none = 0;
  const TensorView a = TensorView::Of(&none, {2, 0}), b = TensorView::Of(&none, {0, 3});
  std::vector<float> bias = {-2, 0, 3}, pre(6, 7), hidden(6, 7), gradient(6, 7), dbias = {1, 2, 3};
  const TensorView pre_view = TensorView::Of(pre.data(), {2, 3});
  Gemm(Transpose::kNo, Transpose::kNo, 1, a, b, 0, TensorView::Of(hidden.data(), {2, 3}), stream,
       Epilogue::BiasGelu(TensorView::Of(bias.data(), {3}), pre_view));
  Gemm(Transpose::kNo, Transpose::kNo, 1, a, b, 0, TensorView::Of(gradient.data(), {2, 3}), stream,
       Epilogue::GeluGradient(pre_view));
  std::vector<float> kept = {1, 2, 3, 4, 5, 6};
  Gemm(Transpose::kNo, Transpose::kNo, 1, a, b, 1, TensorView::Of(kept.data(), {2, 3}), stream,
       Epilogue::BiasGradient(TensorView::Of(dbias.data(), {3})));
  Gemm(Transpose::kNo, Transpose::kNo, 1, a, b, 1, TensorView::Of(kept.data(), {2, 3}), stream,
       Epilogue::Bias(TensorView()));
  ASSERT_TRUE(stream.Synchronize().ok());
  EXPECT_EQ(pre, (std::vector<float>{-2, 0, 3, -2, 0, 3}));
  EXPECT_NEAR(hidden[0], -0.0454023, 1e-6);
  EXPECT_EQ(hidden[1], 0);
  EXPECT_NEAR(hidden[5], 2.9963627, 1e-6);
  EXPECT_EQ(gradient, std::vector<float>(6, 0.0f));
  EXPECT_EQ(kept, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(dbias, (std::vector<float>{1, 2, 3}));
}

// Without a row of c there is still a gradient.
TEST_P(GemmTest, BiasGradientOfAnEmptyResult) {
  auto device = Device::OpenCpu(GetParam());
  Stream stream = device->CreateStream("test");
  float none = 0;
  std::vector<float> b = {1, 2, 3, 4, 5, 6}, dbias = {10, 20, 30};
  Gemm(Transpose::kYes, Transpose::kNo, 1, TensorView::Of(&none, {2, 0}),
       TensorView::Of(b.data(), {2, 3}), 1, TensorView::Of(&none, {0, 3}), stream,
       Epilogue::BiasGradient(TensorView::Of(dbias.data(), {3})));
  ASSERT_TRUE(stream.Synchronize().ok());
  EXPECT_EQ(dbias, (std::vector<float>{15, 27, 39}));
}

INSTANTIATE_TEST_SUITE_P(Threads, GemmTest, testing::Values(1, 3));

// Ranks of one process call BLAS at the same time.
TEST(GemmConcurrencyTest, StreamsOfSeveralDevicesAgree) {
  constexpr int64_t kSize = 160;
  std::mt19937 random(3);
  Matrix a(kSize, kSize, kSize, random), b(kSize, kSize, kSize, random);
  constexpr int kRanks = 4;
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<Stream> streams;
  std::vector<Matrix> results;
  for (int i = 0; i < kRanks; ++i) {
    devices.push_back(Device::OpenCpu(2));
    streams.push_back(devices.back()->CreateStream("rank"));
    results.emplace_back(kSize, kSize, kSize, random);
  }
  for (int repeat = 0; repeat < 20; ++repeat) {
    for (int i = 0; i < kRanks; ++i) {
      Gemm(Transpose::kNo, Transpose::kYes, 1, a.View(), b.View(), 0, results[i].View(),
           streams[i]);
    }
  }
  for (Stream& stream : streams) ASSERT_TRUE(stream.Synchronize().ok());
  for (int i = 1; i < kRanks; ++i) EXPECT_EQ(results[i].values, results[0].values);
}

TEST(GemmDeathTest, RefusesShapesThatDoNotMatch) {
  auto device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  std::vector<float> x(64, 0);
  EXPECT_DEATH(Gemm(Transpose::kNo, Transpose::kNo, 1, TensorView::Of(x.data(), {4, 4}),
                    TensorView::Of(x.data(), {5, 4}), 0, TensorView::Of(x.data(), {4, 4}), stream),
               "inner dimension");
}

TEST(GemmDeathTest, RefusesEpiloguesThatDoNotMatch) {
  auto device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  std::vector<float> x(64, 0);
  const TensorView square = TensorView::Of(x.data(), {4, 4});
  const auto product = [&](const Epilogue& epilogue, float beta = 0,
                           Transpose transpose_b = Transpose::kNo) {
    Gemm(Transpose::kNo, transpose_b, 1, square, square, beta, square, stream, epilogue);
  };
  const TensorView row = TensorView::Of(x.data(), {4}), long_row = TensorView::Of(x.data(), {5});
  EXPECT_DEATH(product(Epilogue::Bias(long_row)), "an element of c's dtype for each column of c");
  EXPECT_DEATH(product(Epilogue::GeluGradient(TensorView::Of(x.data(), {4, 5}))), "shaped like c");
  EXPECT_DEATH(product(Epilogue::BiasGelu(row, square), 1), "does not add to c");
  EXPECT_DEATH(product(Epilogue::BiasGradient(long_row)), "an element for each column of b");
  EXPECT_DEATH(product(Epilogue::BiasGradient(row), 1, Transpose::kYes), "rows of a plain b");
}

}  // namespace
}  // namespace longspan
