#include "kernels/cuda/normalization.cuh"

#include <algorithm>

#include "kernels/cuda/launch.cuh"

namespace longspan::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kLargestBlock = 256;

// kLanes neighbouring floats: 16 bytes, one load instruction, where kLanes is 4.
template <int kLanes>
struct alignas(4 * kLanes) Pack {
  float lane[kLanes];
};

template <int kLanes>
__device__ Pack<kLanes> Load(const float* at) {
  return *reinterpret_cast<const Pack<kLanes>*>(at);
}

template <int kLanes>
__device__ void Store(const Pack<kLanes>& pack, float* at) {
  *reinterpret_cast<Pack<kLanes>*>(at) = pack;
}

// The sum over all threads of the block, in every thread. blockDim.x is a multiple of the warp, at
// most kLargestBlock.
__device__ float BlockSum(float value) {
  __shared__ float warp_sums[kLargestBlock / kWarp];
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  if (threadIdx.x % kWarp == 0) warp_sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < blockDim.x / kWarp; ++warp) sum += warp_sums[warp];
  return sum;
}

// One block a row. The second pass over the row finds it in the cache.
template <int kLanes>
__global__ void ForwardKernel(RowsView x, const float* weight, int64_t width, float eps, RowsView y,
                              float* rstd) {
  const int64_t row = blockIdx.x;
  const float* const from = x.data + row * x.stride;
  float* const to = y.data + row * y.stride;
  const int64_t first = threadIdx.x * kLanes, step = blockDim.x * kLanes;
  float squares = 0;
#pragma unroll 4
  for (int64_t c = first; c < width; c += step) {
    const Pack<kLanes> v = Load<kLanes>(from + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) squares += v.lane[k] * v.lane[k];
  }
  const float scale = 1.0f / sqrtf(BlockSum(squares) / static_cast<float>(width) + eps);
  if (threadIdx.x == 0) rstd[row] = scale;
#pragma unroll 4
  for (int64_t c = first; c < width; c += step) {
    const Pack<kLanes> w = Load<kLanes>(weight + c);
    Pack<kLanes> v = Load<kLanes>(from + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) v.lane[k] *= scale * w.lane[k];
    Store(v, to + c);
  }
}

// dx += rstd * (g - n * mean(g * n)) with n = x * rstd and g = dy * weight. One block a row.
template <int kLanes>
__global__ void InputGradientKernel(RowsView dy, RowsView x, const float* weight, const float* rstd,
                                    int64_t width, RowsView dx) {
  const int64_t row = blockIdx.x;
  const float* const gradient = dy.data + row * dy.stride;
  const float* const input = x.data + row * x.stride;
  float* const to = dx.data + row * dx.stride;
  const int64_t first = threadIdx.x * kLanes, step = blockDim.x * kLanes;
  float dot = 0;
#pragma unroll 2
  for (int64_t c = first; c < width; c += step) {
    const Pack<kLanes> g = Load<kLanes>(gradient + c);
    const Pack<kLanes> v = Load<kLanes>(input + c);
    const Pack<kLanes> w = Load<kLanes>(weight + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) dot += g.lane[k] * w.lane[k] * v.lane[k];
  }
  const float scale = rstd[row];
  const float mean = BlockSum(dot) * scale / static_cast<float>(width);
#pragma unroll 2
  for (int64_t c = first; c < width; c += step) {
    const Pack<kLanes> g = Load<kLanes>(gradient + c);
    const Pack<kLanes> v = Load<kLanes>(input + c);
    const Pack<kLanes> w = Load<kLanes>(weight + c);
    Pack<kLanes> sum = Load<kLanes>(to + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float normalized = v.lane[k] * scale;
      sum.lane[k] += scale * (g.lane[k] * w.lane[k] - normalized * mean);
    }
    Store(sum, to + c);
  }
}

// The weight gradient, first pass: partials[chunk] = sum of dy * x * rstd over the rows of a chunk.
// A block is 32 threads wide, one pack of columns each, and kSumRows deep; what the depths summed
// is added up in their order.
constexpr int kSumRows = 8;

template <int kLanes>
__global__ void WeightPartialsKernel(RowsView dy, RowsView x, const float* rstd, int64_t rows,
                                     int64_t width, int64_t chunk_rows, float* partials) {
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x) * kLanes;
  const int64_t begin = blockIdx.y * chunk_rows;
  const int64_t end = begin + chunk_rows < rows ? begin + chunk_rows : rows;
  Pack<kLanes> sum = {};
  if (column < width) {
#pragma unroll 4
    for (int64_t row = begin + threadIdx.y; row < end; row += kSumRows) {
      const Pack<kLanes> g = Load<kLanes>(dy.data + row * dy.stride + column);
      const Pack<kLanes> v = Load<kLanes>(x.data + row * x.stride + column);
      const float scale = rstd[row];
#pragma unroll
      for (int k = 0; k < kLanes; ++k) sum.lane[k] += g.lane[k] * (v.lane[k] * scale);
    }
  }
  __shared__ Pack<kLanes> sums[kSumRows][kWarp];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  for (int depth = 1; depth < kSumRows; ++depth) {
#pragma unroll
    for (int k = 0; k < kLanes; ++k) sum.lane[k] += sums[depth][threadIdx.x].lane[k];
  }
  Store(sum, partials + blockIdx.y * width + column);
}

// Second pass: dweight += partials[0] + partials[1] + ..., in that order. One thread a column.
__global__ void AddPartialsKernel(const float* partials, int64_t chunks, int64_t width,
                                  float* dweight) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= width) return;
  float sum = dweight[column];
#pragma unroll 4
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partials[chunk * width + column];
  dweight[column] = sum;
}

bool Aligned(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }
bool Aligned(const RowsView& view) { return Aligned(view.data) && view.stride % 4 == 0; }

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <int kLanes>
unsigned BlockFor(int64_t width) {
  const int64_t threads = CeilDivide(CeilDivide(width, kLanes), kWarp) * kWarp;
  return static_cast<unsigned>(std::min<int64_t>(threads, kLargestBlock));
}

template <int kLanes>
cudaError_t Forward(RowsView x, const float* weight, int64_t rows, int64_t width, float eps,
                    RowsView y, float* rstd, cudaStream_t stream) {
  return Launch(ForwardKernel<kLanes>, static_cast<unsigned>(rows), BlockFor<kLanes>(width), 0,
                stream, x, weight, width, eps, y, rstd);
}

template <int kLanes>
cudaError_t Backward(RowsView dy, RowsView x, const float* weight, const float* rstd, int64_t rows,
                     int64_t width, RowsView dx, float* dweight, cudaStream_t stream) {
  // The number of chunks depends on the rows alone, so sums have one order on every GPU.
  const int64_t chunk_rows = std::max<int64_t>(64, CeilDivide(rows, 64));
  const int64_t chunks = CeilDivide(rows, chunk_rows);
  void* partials = nullptr;
  cudaError_t error = cudaMallocAsync(&partials, chunks * width * sizeof(float), stream);
  if (error != cudaSuccess) return error;
  error = Launch(InputGradientKernel<kLanes>, static_cast<unsigned>(rows), BlockFor<kLanes>(width),
                 0, stream, dy, x, weight, rstd, width, dx);
  const dim3 grid(static_cast<unsigned>(CeilDivide(width, kWarp * kLanes)),
                  static_cast<unsigned>(chunks));
  if (error == cudaSuccess)
    error = Launch(WeightPartialsKernel<kLanes>, grid, dim3(kWarp, kSumRows), 0, stream, dy, x,
                   rstd, rows, width, chunk_rows, static_cast<float*>(partials));
  if (error == cudaSuccess)
    error = Launch(AddPartialsKernel, static_cast<unsigned>(CeilDivide(width, 128)), 128, 0, stream,
                   static_cast<float*>(partials), chunks, width, dweight);
  const cudaError_t free_error = cudaFreeAsync(partials, stream);
  return error != cudaSuccess ? error : free_error;
}

}  // namespace

cudaError_t RmsNormForward(RowsView x, const float* weight, int64_t rows, int64_t width, float eps,
                           RowsView y, float* rstd, cudaStream_t stream) {
  if (rows == 0 || width == 0) return cudaSuccess;
  const bool wide = width % 4 == 0 && Aligned(x) && Aligned(y) && Aligned(weight);
  return wide ? Forward<4>(x, weight, rows, width, eps, y, rstd, stream)
              : Forward<1>(x, weight, rows, width, eps, y, rstd, stream);
}

cudaError_t RmsNormBackward(RowsView dy, RowsView x, const float* weight, const float* rstd,
                            int64_t rows, int64_t width, RowsView dx, float* dweight,
                            cudaStream_t stream) {
  if (rows == 0 || width == 0) return cudaSuccess;
  const bool wide = width % 4 == 0 && Aligned(dy) && Aligned(x) && Aligned(dx) && Aligned(weight);
  return wide ? Backward<4>(dy, x, weight, rstd, rows, width, dx, dweight, stream)
              : Backward<1>(dy, x, weight, rstd, rows, width, dx, dweight, stream);
}

}  // namespace longspan::cuda
