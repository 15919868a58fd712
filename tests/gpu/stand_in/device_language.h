// The words of CUDA C++ that kernels/cuda/*.cu use, for a C++ compiler: a thread of a block is a
// fiber (grid.h). Arithmetic intrinsics are the C library's functions: within their documented
// error of a GPU's, not the same bits.
#ifndef LONGSPAN_TESTS_GPU_STAND_IN_DEVICE_LANGUAGE_H_
#define LONGSPAN_TESTS_GPU_STAND_IN_DEVICE_LANGUAGE_H_

#include <cuda_runtime_api.h>
#undef __host__
#undef __device__
#undef __global__
#undef __constant__
#undef __shared__
#undef __launch_bounds__
#define __host__
#define __device__
#define __global__
#define __constant__
// Blocks run one after another on a thread, and so share what that thread has.
#define __shared__ static thread_local
#define __launch_bounds__(...)

#include <vector_types.h>

#include <cmath>
#include <cstring>
#include <type_traits>

#include "grid.h"

// Of the thread whose fiber runs.
inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;
constexpr int warpSize = 32;

inline void __syncthreads() { longspan::stand_in::BlockBarrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { longspan::stand_in::WarpBarrier(mask); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  const int lane = longspan::stand_in::Lane();
  T got;
  longspan::stand_in::Exchange(mask, &value, &got, sizeof(T),
                               lane / width * width + source % width);
  return got;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int lane = longspan::stand_in::Lane(), source = lane ^ lanes;
  const bool inside = source / width <= lane / width;
  return __shfl_sync(mask, value, (inside ? source : lane) % width, width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  const int at = longspan::stand_in::Lane() % width, source = at + static_cast<int>(lanes);
  return __shfl_sync(mask, value, source < width ? source : at, width);
}

// Blocks of one grid run one after another, but grids of several streams at the same time.
template <typename T>
T atomicAdd(T* at, T value) {
  if constexpr (std::is_integral_v<T>) {
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
  } else {
    T old = *at, sum;
    do {
      sum = old + value;
    } while (!__atomic_compare_exchange(at, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
  }
}

inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(__float_as_int(x)); }
inline float __uint_as_float(unsigned bits) { return __int_as_float(static_cast<int>(bits)); }

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }

template <typename T>
T __ldg(const T* at) {
  return *at;
}
template <typename T>
T __ldcs(const T* at) {
  return *at;
}
template <typename T>
void __stcs(T* at, T value) {
  *at = value;
}

#endif  // LONGSPAN_TESTS_GPU_STAND_IN_DEVICE_LANGUAGE_H_
