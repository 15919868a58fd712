// Matrix products on the CPU: OpenBLAS, single-threaded, on one part of C for each of the device's
// threads.
//
// OpenBLAS with its own threads would share one process-wide pool (and one lock) between all ranks
// of a process. Limited to one thread, concurrent calls meet only in the short lock around its
// buffer table.
#include "kernels/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <limits>

#include "kernels/cuda/dispatch.h"
#include "kernels/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/gelu-inl.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {
namespace {

// Epilogues of a stretch of a row of c.

void BiasGeluOf(const float* bias, int64_t count, float* pre_activation, float* c) {
  ForLanes(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto sum = hn::Add(hn::LoadU(d, c + i), hn::LoadU(d, bias + i));
    hn::StoreU(sum, d, pre_activation + i);
    hn::StoreU(Gelu(d, sum), d, c + i);
  });
}

void TimesGeluSlope(const float* pre_activation, int64_t count, float* c) {
  ForLanes(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto slope = GeluSlope(d, hn::LoadU(d, pre_activation + i));
    hn::StoreU(hn::Mul(hn::LoadU(d, c + i), slope), d, c + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan {

HWY_EXPORT(AddRow);
HWY_EXPORT(BiasGeluOf);
HWY_EXPORT(TimesGeluSlope);

namespace {

using Kind = Epilogue::Kind;

// Below this many multiply-adds a part costs less than waking a thread for it.
constexpr double kMinPartWork = 1 << 17;
// Smaller parts spend their time packing operands.
constexpr int64_t kMinPartRows = 48;
constexpr int64_t kMinPartColumns = 64;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool Fits(int64_t value) { return value <= std::numeric_limits<blasint>::max(); }

void CheckMatrix(const TensorView& x, DType dtype) {
  LONGSPAN_CHECK(x.rank() == 2, "a matrix has two dimensions");
  LONGSPAN_CHECK(x.dtype() == dtype, "the operands of a matrix product differ in dtype");
  LONGSPAN_CHECK(x.dim(0) <= 1 || x.stride(0) >= x.dim(1), "the rows of a matrix overlap");
  LONGSPAN_CHECK(Fits(x.dim(0)) && Fits(x.dim(1)) && Fits(x.stride(0)),
                 "an extent of a matrix exceeds the range of BLAS integers");
}

// BLAS wants a leading dimension of at least the row's width, even of a matrix of one row or none.
blasint LeadingDimension(const TensorView& x) {
  return static_cast<blasint>(std::max<int64_t>({1, x.dim(1), x.stride(0)}));
}

// Begin of part `index` of `parts` of [0, count), on a multiple of 8 but for the last.
int64_t PartBegin(int64_t count, int64_t parts, int64_t index) {
  if (index == parts) return count;
  return std::min(count, DivideUp(count * index, parts * 8) * 8);
}

void CheckEpilogue(const Epilogue& epilogue, const TensorView& b, bool b_across, float beta,
                   const TensorView& c) {
  const int64_t n = c.dim(1);
  if (epilogue.kind == Kind::kBias || epilogue.kind == Kind::kBiasGelu) {
    LONGSPAN_CHECK(epilogue.bias.rank() == 1 && epilogue.bias.dim(0) == n &&
                       epilogue.bias.dtype() == c.dtype(),
                   "the bias of a matrix product has an element of c's dtype for each column of c");
  }
  if (epilogue.kind == Kind::kBiasGelu || epilogue.kind == Kind::kGeluGradient) {
    CheckMatrix(epilogue.pre_activation, c.dtype());
    LONGSPAN_CHECK(
        epilogue.pre_activation.dim(0) == c.dim(0) && epilogue.pre_activation.dim(1) == n,
        "the pre-activation of a matrix product is shaped like c");
    LONGSPAN_CHECK(beta == 0, "a matrix product with GELU does not add to c");
  }
  if (epilogue.kind == Kind::kBiasGradient) {
    LONGSPAN_CHECK(epilogue.bias.rank() == 1 && epilogue.bias.dim(0) == b.dim(1) &&
                       epilogue.bias.dtype() == DType::kF32,
                   "the gradient of a bias is f32 and has an element for each column of b");
    LONGSPAN_CHECK(!b_across, "the gradient of a bias is summed over the rows of a plain b");
  }
}

// Of the block of c that begins at (row, column). What a thread has just computed is in its cache.
void FinishBlock(const Epilogue& epilogue, int64_t row, int64_t rows, int64_t column,
                 int64_t columns, const TensorView& c) {
  if (epilogue.kind == Kind::kNone || epilogue.kind == Kind::kBiasGradient) return;
  const TensorView& pre = epilogue.pre_activation;
  for (int64_t r = row; r < row + rows; ++r) {
    float* const to = c.data<float>() + r * c.stride(0) + column;
    float* const before =
        pre.rank() == 0 ? nullptr : pre.data<float>() + r * pre.stride(0) + column;
    if (epilogue.kind == Kind::kGeluGradient) {
      HWY_DYNAMIC_DISPATCH(TimesGeluSlope)(before, columns, to);
      continue;
    }
    const float* const bias = epilogue.bias.data<float>() + column;
    if (epilogue.kind == Kind::kBias) {
      HWY_DYNAMIC_DISPATCH(AddRow)(bias, columns, to);
    } else {
      HWY_DYNAMIC_DISPATCH(BiasGeluOf)(bias, columns, before, to);
    }
  }
}

}  // namespace

Epilogue Epilogue::Bias(TensorView bias) {
  return bias.empty() ? Epilogue{} : Epilogue{Kind::kBias, bias, {}};
}

Epilogue Epilogue::BiasGelu(TensorView bias, TensorView pre_activation) {
  return {Kind::kBiasGelu, bias, pre_activation};
}

Epilogue Epilogue::GeluGradient(TensorView pre_activation) {
  return {Kind::kGeluGradient, {}, pre_activation};
}

Epilogue Epilogue::BiasGradient(TensorView dbias) {
  return dbias.empty() ? Epilogue{} : Epilogue{Kind::kBiasGradient, dbias, {}};
}

void Gemm(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b,
          float beta, TensorView c, Stream& stream, const Epilogue& epilogue) {
  const DType dtype = ComputeType(a, stream);
  CheckMatrix(a, dtype);
  CheckMatrix(b, dtype);
  CheckMatrix(c, c.dtype() == dtype ? dtype : DType::kF32);
  const bool a_across = transpose_a == Transpose::kYes;
  const bool b_across = transpose_b == Transpose::kYes;
  const int64_t m = c.dim(0), n = c.dim(1), k = a.dim(a_across ? 0 : 1);
  LONGSPAN_CHECK(a.dim(a_across ? 1 : 0) == m, "op(a) and c differ in rows");
  LONGSPAN_CHECK(b.dim(b_across ? 0 : 1) == n, "op(b) and c differ in columns");
  LONGSPAN_CHECK(b.dim(b_across ? 1 : 0) == k, "op(a) and op(b) differ in the inner dimension");
  CheckEpilogue(epilogue, b, b_across, beta, c);
  const bool bias_gradient = epilogue.kind == Kind::kBiasGradient;
  if (m == 0 || n == 0) {
    if (bias_gradient) BiasBackward(b, epilogue.bias, stream);
    return;
  }
  LONGSPAN_RUN_ON_CUDA(stream,
                       Gemm(transpose_a, transpose_b, alpha, a, b, beta, c, epilogue, stream));

  stream.Launch("gemm", [=, pool = &stream.device().threads()] {
    // Once for the process: the setting is OpenBLAS's own global.
    [[maybe_unused]] static const bool single_threaded = (openblas_set_num_threads(1), true);
    const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    const int64_t wanted =
        std::clamp<int64_t>(static_cast<int64_t>(work / kMinPartWork), 1, pool->threads());
    const int64_t row_parts = std::min(wanted, DivideUp(m, kMinPartRows));
    const int64_t column_parts = std::min(wanted / row_parts, DivideUp(n, kMinPartColumns));
    const blasint lda = LeadingDimension(a), ldb = LeadingDimension(b), ldc = LeadingDimension(c);
    pool->ParallelFor(row_parts * column_parts, [&](int64_t part) {
      const int64_t row = PartBegin(m, row_parts, part / column_parts);
      const int64_t rows = PartBegin(m, row_parts, part / column_parts + 1) - row;
      const int64_t column = PartBegin(n, column_parts, part % column_parts);
      const int64_t columns = PartBegin(n, column_parts, part % column_parts + 1) - column;
      if (rows == 0 || columns == 0) return;
      cblas_sgemm(CblasRowMajor, a_across ? CblasTrans : CblasNoTrans,
                  b_across ? CblasTrans : CblasNoTrans, static_cast<blasint>(rows),
                  static_cast<blasint>(columns), static_cast<blasint>(k), alpha,
                  a.data<float>() + (a_across ? row : row * lda), lda,
                  b.data<float>() + (b_across ? column * ldb : column), ldb, beta,
                  c.data<float>() + row * ldc + column, ldc);
      FinishBlock(epilogue, row, rows, column, columns, c);
    });
  });
  if (bias_gradient) BiasBackward(b, epilogue.bias, stream);
}

}  // namespace longspan
#endif  // HWY_ONCE
