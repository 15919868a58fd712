// What the kernels that go through memory once are made of: packs of neighbouring elements that are
// loaded and stored in 16-byte accesses and computed with in FP32, and sums over warps and blocks.
#ifndef LONGSPAN_KERNELS_CUDA_PACKS_CUH_
#define LONGSPAN_KERNELS_CUDA_PACKS_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32;
constexpr int kLargestBlock = 512;

inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(bf16 x) { return __bfloat162float(x); }
// Rounds to the nearest, ties to even.
template <typename T>
__device__ T FromFloat(float x);
template <>
__device__ inline float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 FromFloat<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// kLanes neighbouring elements as floats.
template <int kLanes>
struct Pack {
  float lane[kLanes];
};

// As they lie in memory.
template <typename T, int kLanes>
struct alignas(sizeof(T) * kLanes < 16 ? sizeof(T) * kLanes : 16) Stored {
  T lane[kLanes];
};

template <int kLanes, typename T>
__device__ Pack<kLanes> Load(const T* at) {
  const Stored<T, kLanes> stored = *reinterpret_cast<const Stored<T, kLanes>*>(at);
  Pack<kLanes> pack;
#pragma unroll
  for (int k = 0; k < kLanes; ++k) pack.lane[k] = ToFloat(stored.lane[k]);
  return pack;
}

template <int kLanes, typename T>
__device__ void Store(const Pack<kLanes>& pack, T* at) {
  Stored<T, kLanes> stored;
#pragma unroll
  for (int k = 0; k < kLanes; ++k) stored.lane[k] = FromFloat<T>(pack.lane[k]);
  *reinterpret_cast<Stored<T, kLanes>*>(at) = stored;
}

template <typename T>
__device__ T WarpSum(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}
__device__ inline float WarpMax(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// The sum over all threads of a block, in every thread; always added in the same order. `partials`
// is shared memory of one element a warp. Two calls in a row need two arrays, or a barrier between.
template <typename T>
__device__ T BlockSum(T value, T* partials) {
  value = WarpSum(value);
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  if (threadIdx.x % kWarp == 0) partials[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = 0;
  for (int warp = 0; warp < warps; ++warp) sum += partials[warp];
  return sum;
}

// Rows of a matrix, `stride` elements apart.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;
  __device__ T* operator[](int64_t row) const { return data + row * stride; }
};

template <typename T>
Rows<T> RowsOf(const TensorView& x) {
  return {static_cast<T*>(x.raw()), x.stride(0)};
}

// Whether packs of `lanes` elements of `x`, f32 or bf16, lie on 16-byte borders (or on their own,
// where they are smaller) in every row.
inline bool TakesPacks(const TensorView& x, int lanes) {
  const int64_t bytes = lanes * SizeOf(x.dtype());
  const int64_t border = bytes < 16 ? bytes : 16;
  if (x.dim(x.rank() - 1) % lanes != 0) return false;
  if (static_cast<int64_t>(reinterpret_cast<uintptr_t>(x.raw())) % border != 0) return false;
  for (int axis = 0; axis + 1 < x.rank(); ++axis) {
    if (x.dim(axis) > 1 && x.stride(axis) * SizeOf(x.dtype()) % border != 0) return false;
  }
  return true;
}

// Threads for `packs` packs of a row: whole warps, not more than needed or allowed.
inline unsigned ThreadsFor(int64_t packs, int64_t most = kLargestBlock) {
  const int64_t threads = CeilDivide(packs, kWarp) * kWarp;
  return static_cast<unsigned>(threads < most ? (threads > 0 ? threads : kWarp) : most);
}

// sums[c] += partials[0][c] + partials[1][c] + ..., in that order. partials: (count, width).
cudaError_t AddPartials(const float* partials, int64_t count, int64_t width, float* sums,
                        cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_PACKS_CUH_
