#include "kernels/cuda/elementwise.cuh"

#include <algorithm>

#include "kernels/cuda/rows.cuh"

namespace longspan::cuda {
namespace {

// Rows of bytes, moved as words.
template <typename Word>
struct CopyWords {
  StridedRows<const char> x;
  StridedRows<char> y;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    static_assert(kLanes == 1);
    reinterpret_cast<Word*>(y[row])[c] = reinterpret_cast<const Word*>(x[row])[c];
  }
};

template <typename X, typename Y>
struct ConvertPacks {
  StridedRows<const X> x;
  StridedRows<Y> y;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    Store(Load<kLanes>(x[row] + c), y[row] + c);
  }
};

template <typename X, typename Y>
struct AddPacks {
  StridedRows<const X> x;
  StridedRows<Y> y;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    const Pack<kLanes> more = Load<kLanes>(x[row] + c);
    Pack<kLanes> sum = Load<kLanes>(y[row] + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) sum.lane[k] += more.lane[k];
    Store(sum, y[row] + c);
  }
};

template <typename B, typename Y>
struct AddBiasPacks {
  const B* bias;
  Rows<Y> y;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    const Pack<kLanes> more = Load<kLanes>(bias + c);
    Pack<kLanes> sum = Load<kLanes>(y[row] + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) sum.lane[k] += more.lane[k];
    Store(sum, y[row] + c);
  }
};

// Column sums: a block is 32 threads wide, one pack of columns each, and kDepth deep; what the
// depths summed is added up in their order.
constexpr int kDepth = 8;

template <typename T, int kLanes>
__global__ void ColumnSumKernel(Rows<const T> x, int64_t rows, int64_t width, int64_t chunk_rows,
                                float* partials) {
  __shared__ float sums[kDepth][kWarp][kLanes + 1];
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x) * kLanes;
  const int64_t begin = blockIdx.y * chunk_rows;
  const int64_t end = begin + chunk_rows < rows ? begin + chunk_rows : rows;
  Pack<kLanes> sum = {};
  if (column < width) {
#pragma unroll 4
    for (int64_t row = begin + threadIdx.y; row < end; row += kDepth) {
      const Pack<kLanes> more = Load<kLanes>(x[row] + column);
#pragma unroll
      for (int k = 0; k < kLanes; ++k) sum.lane[k] += more.lane[k];
    }
  }
#pragma unroll
  for (int k = 0; k < kLanes; ++k) sums[threadIdx.y][threadIdx.x][k] = sum.lane[k];
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  for (int depth = 1; depth < kDepth; ++depth) {
#pragma unroll
    for (int k = 0; k < kLanes; ++k) sum.lane[k] += sums[depth][threadIdx.x][k];
  }
  Store(sum, partials + blockIdx.y * width + column);
}

// One thread a column and depth; depths are added up in order, so that there is one order of sums.
__global__ void AddPartialsKernel(const float* partials, int64_t count, int64_t width,
                                  float* sums) {
  __shared__ float depths[kDepth][kWarp];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  const int64_t each = (count + kDepth - 1) / kDepth, begin = threadIdx.y * each;
  const int64_t end = begin + each < count ? begin + each : count;
  float sum = 0;
  if (column < width) {
#pragma unroll 4
    for (int64_t i = begin; i < end; ++i) sum += partials[i * width + column];
  }
  depths[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  for (int depth = 1; depth < kDepth; ++depth) sum += depths[depth][threadIdx.x];
  sums[column] += sum;
}

int64_t ChunkRows(int64_t rows) { return std::max<int64_t>(64, CeilDivide(rows, 64)); }

template <typename T, int kLanes>
cudaError_t ColumnSums(const TensorView& x, float* partials, cudaStream_t stream) {
  const int64_t rows = x.dim(0), width = x.dim(1), chunk_rows = ChunkRows(rows);
  const dim3 grid(static_cast<unsigned>(CeilDivide(width, kWarp * kLanes)),
                  static_cast<unsigned>(CeilDivide(rows, chunk_rows)));
  return Launch(ColumnSumKernel<T, kLanes>, grid, dim3(kWarp, kDepth), 0, stream,
                RowsOf<const T>(x), rows, width, chunk_rows, partials);
}

template <typename Char>
StridedRows<Char> BytesOf(const TensorView& x, const RowShape& shape) {
  StridedRows<Char> rows = StridedRowsOf<Char>(x, shape);
  rows.outer_stride *= SizeOf(x.dtype());
  rows.inner_stride *= SizeOf(x.dtype());
  return rows;
}

template <typename Word>
cudaError_t CopyAs(const StridedRows<const char>& x, const StridedRows<char>& y, int64_t rows,
                   int64_t bytes, cudaStream_t stream) {
  return ForRowsOf<1>(rows, bytes / static_cast<int64_t>(sizeof(Word)), CopyWords<Word>{x, y},
                      stream);
}

}  // namespace

cudaError_t CopyRowsOf(const TensorView& x, const TensorView& y, cudaStream_t stream) {
  if (x.empty()) return cudaSuccess;
  const RowShape shape = RowShapeOf(x, y);
  const StridedRows<const char> from = BytesOf<const char>(x, shape);
  const StridedRows<char> to = BytesOf<char>(y, shape);
  const int64_t bytes = shape.width * SizeOf(x.dtype());
  const auto together = reinterpret_cast<uintptr_t>(from.data) |
                        reinterpret_cast<uintptr_t>(to.data) |
                        static_cast<uintptr_t>(from.outer_stride | from.inner_stride |
                                               to.outer_stride | to.inner_stride | bytes);
  if (together % 16 == 0) return CopyAs<uint4>(from, to, shape.rows, bytes, stream);
  if (together % 4 == 0) return CopyAs<uint32_t>(from, to, shape.rows, bytes, stream);
  if (together % 2 == 0) return CopyAs<uint16_t>(from, to, shape.rows, bytes, stream);
  return CopyAs<uint8_t>(from, to, shape.rows, bytes, stream);
}

cudaError_t ConvertRows(const TensorView& x, const TensorView& y, cudaStream_t stream) {
  if (x.empty()) return cudaSuccess;
  const RowShape shape = RowShapeOf(x, y);
  const int lanes = LanesOf(x, y);
  if (x.dtype() == DType::kF32) {
    return ForRows(shape.rows, shape.width, lanes,
                   ConvertPacks<float, bf16>{StridedRowsOf<const float>(x, shape),
                                             StridedRowsOf<bf16>(y, shape)},
                   stream);
  }
  return ForRows(shape.rows, shape.width, lanes,
                 ConvertPacks<bf16, float>{StridedRowsOf<const bf16>(x, shape),
                                           StridedRowsOf<float>(y, shape)},
                 stream);
}

cudaError_t AddRows(const TensorView& x, const TensorView& y, cudaStream_t stream) {
  if (x.empty()) return cudaSuccess;
  const RowShape shape = RowShapeOf(x, y);
  const int lanes = LanesOf(x, y);
  return WithType(x.dtype(), [&](auto x_type) {
    return WithType(y.dtype(), [&](auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      return ForRows(shape.rows, shape.width, lanes,
                     AddPacks<X, Y>{StridedRowsOf<const X>(x, shape), StridedRowsOf<Y>(y, shape)},
                     stream);
    });
  });
}

cudaError_t AddBiasRows(const TensorView& bias, const TensorView& y, cudaStream_t stream) {
  const int lanes = LanesOf(bias, y);
  return WithType(bias.dtype(), [&](auto bias_type) {
    return WithType(y.dtype(), [&](auto y_type) {
      using B = decltype(bias_type);
      using Y = decltype(y_type);
      return ForRows(y.dim(0), y.dim(1), lanes,
                     AddBiasPacks<B, Y>{static_cast<const B*>(bias.raw()), RowsOf<Y>(y)}, stream);
    });
  });
}

int64_t ColumnSumPartials(int64_t rows, int64_t width) {
  return CeilDivide(rows, ChunkRows(rows)) * width;
}

cudaError_t AddColumnSums(const TensorView& dy, const TensorView& dbias, float* partials,
                          cudaStream_t stream) {
  if (dy.empty()) return cudaSuccess;
  const int lanes = LanesOf(dy);
  const cudaError_t error = dy.dtype() == DType::kF32
                                ? (lanes == 4 ? ColumnSums<float, 4>(dy, partials, stream)
                                              : ColumnSums<float, 1>(dy, partials, stream))
                                : (lanes == 8 ? ColumnSums<bf16, 8>(dy, partials, stream)
                                              : ColumnSums<bf16, 1>(dy, partials, stream));
  if (error != cudaSuccess) return error;
  const int64_t rows = dy.dim(0), width = dy.dim(1);
  return AddPartials(partials, CeilDivide(rows, ChunkRows(rows)), width, dbias.data<float>(),
                     stream);
}

cudaError_t AddPartials(const float* partials, int64_t count, int64_t width, float* sums,
                        cudaStream_t stream) {
  return Launch(AddPartialsKernel, static_cast<unsigned>(CeilDivide(width, kWarp)),
                dim3(kWarp, kDepth), 0, stream, partials, count, width, sums);
}

}  // namespace longspan::cuda
