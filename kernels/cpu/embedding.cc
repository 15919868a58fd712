#include "kernels/embedding.h"

#include <cstring>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cuda/dispatch.h"

namespace longspan {
namespace {

// Columns of one backward task: four cache lines. All rows of the batch pass through each task in
// order, so sums have one order, and a frequent token does not weigh on one thread as a split by
// token would.
constexpr int64_t kColumnBlock = 64;

struct Shape {
  int64_t rows;
  int64_t entries;
  int64_t width;
};

// `table` and `rows` are of these dtypes.
Shape CheckedShape(const TensorView& ids, const TensorView& table, DType table_dtype,
                   const TensorView& rows, DType rows_dtype) {
  LONGSPAN_CHECK(ids.rank() == 1 && table.rank() == 2, "ids is (rows), the table (entries, width)");
  const Shape shape{ids.dim(0), table.dim(0), table.dim(1)};
  CheckVector(ids, shape.rows, DType::kI32);
  CheckMatrix(table, shape.entries, shape.width, table_dtype);
  CheckMatrix(rows, shape.rows, shape.width, rows_dtype);
  return shape;
}

void CheckIds(const int32_t* ids, const Shape& shape) {
  for (int64_t r = 0; r < shape.rows; ++r)
    LONGSPAN_CHECK(ids[r] >= 0 && ids[r] < shape.entries, "embedding id outside the table");
}

void AddTo(const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] += x[i];
}

}  // namespace

void EmbeddingForward(TensorView ids, TensorView table, bool accumulate, TensorView out,
                      Stream& stream) {
  const Shape shape =
      CheckedShape(ids, table, ComputeType(table, stream), out, ComputeType(out, stream));
  LONGSPAN_RUN_ON_CUDA(stream, EmbeddingForward(ids, table, accumulate, out, stream));
  stream.Launch("embedding_forward", [=, threads = &stream.device().threads()] {
    const int32_t* const id = ids.data<int32_t>();
    CheckIds(id, shape);
    ForRowBlocks(*threads, shape.rows, shape.width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float* const from = table.data<float>() + id[r] * table.stride(0);
        float* const to = out.data<float>() + r * out.stride(0);
        if (accumulate) {
          AddTo(from, shape.width, to);
        } else {
          std::memcpy(to, from, shape.width * sizeof(float));
        }
      }
    });
  });
}

void EmbeddingBackward(TensorView ids, TensorView dout, TensorView dtable, Stream& stream) {
  const Shape shape = CheckedShape(ids, dtable, DType::kF32, dout, ComputeType(dout, stream));
  LONGSPAN_RUN_ON_CUDA(stream, EmbeddingBackward(ids, dout, dtable, stream));
  stream.Launch("embedding_backward", [=, threads = &stream.device().threads()] {
    const int32_t* const id = ids.data<int32_t>();
    CheckIds(id, shape);
    threads->ParallelFor((shape.width + kColumnBlock - 1) / kColumnBlock, [&](int64_t block) {
      const int64_t begin = block * kColumnBlock;
      const int64_t count = std::min(kColumnBlock, shape.width - begin);
      for (int64_t r = 0; r < shape.rows; ++r) {
        AddTo(dout.data<float>() + r * dout.stride(0) + begin, count,
              dtable.data<float>() + id[r] * dtable.stride(0) + begin);
      }
    });
  });
}

}  // namespace longspan
