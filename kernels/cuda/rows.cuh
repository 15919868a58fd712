// One launch for every operation that treats the packs of a tensor's rows one by one: a small
// struct says what happens to one pack.
#ifndef LONGSPAN_KERNELS_CUDA_ROWS_CUH_
#define LONGSPAN_KERNELS_CUDA_ROWS_CUH_

#include <algorithm>

#include "kernels/cuda/packs.cuh"

namespace longspan::cuda {

// A tensor of 1 to 3 dimensions as rows of contiguous elements: row r starts at
// (r / inner) * outer_stride + (r % inner) * inner_stride.
template <typename T>
struct StridedRows {
  T* data;
  int64_t inner, outer_stride, inner_stride;
  __device__ T* operator[](int64_t row) const {
    if (inner == 1) return data + row * outer_stride;
    return data + row / inner * outer_stride + row % inner * inner_stride;
  }
};

// How two tensors of one shape are cut into rows that are contiguous in both.
struct RowShape {
  int64_t rows = 0, width = 0;
  bool per_inner = false;  // a row for each (first, second) index
};

inline bool InnerIsPacked(const TensorView& x) {
  return x.rank() < 3 || x.dim(1) == 1 || x.stride(1) == x.dim(2);
}

inline RowShape RowShapeOf(const TensorView& x, const TensorView& y) {
  if (x.rank() == 1 || (x.contiguous() && y.contiguous())) return {1, x.elements(), false};
  if (x.rank() == 2) return {x.dim(0), x.dim(1), false};
  if (InnerIsPacked(x) && InnerIsPacked(y)) return {x.dim(0), x.dim(1) * x.dim(2), false};
  return {x.dim(0) * x.dim(1), x.dim(2), true};
}

template <typename T>
StridedRows<T> StridedRowsOf(const TensorView& x, const RowShape& shape) {
  T* const data = static_cast<T*>(x.raw());
  const int64_t outer = x.rank() == 1 ? 0 : x.stride(0);
  return shape.per_inner ? StridedRows<T>{data, x.dim(1), outer, x.stride(1)}
                         : StridedRows<T>{data, 1, outer, 0};
}

// operation.Do<kLanes>(row, column) for every pack of every row.
template <int kLanes, typename Operation>
__global__ void __launch_bounds__(256) RowsKernel(int64_t width, Operation operation) {
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.x * kLanes;
  for (int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kLanes;
       c < width; c += step) {
    operation.template Do<kLanes>(static_cast<int64_t>(blockIdx.x), c);
  }
}

template <int kLanes, typename Operation>
cudaError_t ForRowsOf(int64_t rows, int64_t width, const Operation& operation,
                      cudaStream_t stream) {
  const int64_t packs = CeilDivide(width, kLanes);
  const unsigned threads = ThreadsFor(packs, 256);
  const int64_t most = rows > 1 ? 64 : 16384;
  const unsigned columns = static_cast<unsigned>(std::min(CeilDivide(packs, threads), most));
  return Launch(RowsKernel<kLanes, Operation>, dim3(static_cast<unsigned>(rows), columns), threads,
                0, stream, width, operation);
}

// `lanes`: 8, 4 or 1, what all tensors of the operation take.
template <typename Operation>
cudaError_t ForRows(int64_t rows, int64_t width, int lanes, const Operation& operation,
                    cudaStream_t stream) {
  if (rows == 0 || width == 0) return cudaSuccess;
  if (lanes == 8) return ForRowsOf<8>(rows, width, operation, stream);
  if (lanes == 4) return ForRowsOf<4>(rows, width, operation, stream);
  return ForRowsOf<1>(rows, width, operation, stream);
}

// The widest packs that every tensor given takes: 16 bytes of the narrowest type.
template <typename... Tensors>
int LanesOf(const Tensors&... tensors) {
  const bool any_bf16 = ((tensors.dtype() == DType::kBF16) || ...);
  const int widest = any_bf16 ? 8 : 4;
  return (TakesPacks(tensors, widest) && ...) ? widest : 1;
}

// Calls body(T()) with the C++ type of a dtype, f32 or bf16.
template <typename Body>
cudaError_t WithType(DType dtype, const Body& body) {
  return dtype == DType::kF32 ? body(float()) : body(bf16());
}

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_ROWS_CUH_
