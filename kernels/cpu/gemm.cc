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

namespace longspan {
namespace {

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

}  // namespace

void Gemm(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b,
          float beta, TensorView c, Stream& stream, TensorView bias) {
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
  LONGSPAN_CHECK(
      bias.rank() == 0 || (bias.rank() == 1 && bias.dim(0) == n && bias.dtype() == c.dtype()),
      "the bias of a matrix product has an element of c's dtype for each column of c");
  if (m == 0 || n == 0) return;
  LONGSPAN_RUN_ON_CUDA(stream, Gemm(transpose_a, transpose_b, alpha, a, b, beta, c, bias, stream));

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
    });
  });
  if (bias.rank() > 0) AddBias(bias, c, stream);
}

}  // namespace longspan
