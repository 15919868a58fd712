// How CPU operators cut rows into tasks. Every number here depends on shapes alone, so that results
// have the same bits on any number of threads. Also the shape checks that operators share.
#ifndef LONGSPAN_KERNELS_CPU_ROW_BLOCKS_H_
#define LONGSPAN_KERNELS_CPU_ROW_BLOCKS_H_

#include <algorithm>
#include <cstdint>

#include "kernels/device/check.h"
#include "kernels/device/tensor_view.h"
#include "kernels/device/thread_pool.h"

namespace longspan {

// Elements of one task: some tens of microseconds of work, far above the price of handing it out.
inline constexpr int64_t kTaskElements = 32768;

// Calls body(begin, end) for blocks of [0, rows), each of about kTaskElements elements of `width` a
// row.
template <typename Body>
void ForRowBlocks(ThreadPool& threads, int64_t rows, int64_t width, const Body& body) {
  const int64_t block = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, width));
  threads.ParallelFor((rows + block - 1) / block, [&](int64_t task) {
    body(task * block, std::min(rows, (task + 1) * block));
  });
}

// The chunks of rows over which column sums are taken before they are added up in order: at most
// 64, so that the partial sums stay small.
struct ColumnSumChunks {
  explicit ColumnSumChunks(int64_t rows)
      : rows_each(std::max<int64_t>(16, (rows + 63) / 64)),
        count((rows + rows_each - 1) / rows_each) {}
  int64_t rows_each;
  int64_t count;
};

// sums[c] += partials[0][c] + partials[1][c] + ..., in that order. partials: (count, width),
// contiguous.
inline void AddPartialSums(ThreadPool& threads, const float* partials, int64_t count, int64_t width,
                           float* sums) {
  ForRowBlocks(threads, width, count, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < count; ++i) {
      const float* partial = partials + i * width;
      for (int64_t c = begin; c < end; ++c) sums[c] += partial[c];
    }
  });
}

// A check fails unless x is (rows, width), of this dtype, rows perhaps strided.
inline void CheckMatrix(const TensorView& x, int64_t rows, int64_t width,
                        DType dtype = DType::kF32) {
  LONGSPAN_CHECK(x.dtype() == dtype, "a matrix holds another dtype than is expected");
  LONGSPAN_CHECK(x.rank() == 2 && x.dim(0) == rows && x.dim(1) == width,
                 "shape differs from the other tensors'");
}

// A check fails unless x is (size), of this dtype.
inline void CheckVector(const TensorView& x, int64_t size, DType dtype = DType::kF32) {
  LONGSPAN_CHECK(x.dtype() == dtype, "tensor holds another dtype");
  LONGSPAN_CHECK(x.rank() == 1 && x.dim(0) == size, "shape differs from the other tensors'");
}

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_CPU_ROW_BLOCKS_H_
