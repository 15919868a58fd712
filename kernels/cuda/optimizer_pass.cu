#include "kernels/cuda/optimizer_pass.cuh"

#include <algorithm>

#include "kernels/cuda/packs.cuh"

namespace longspan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
// Of a block: depends on nothing, so that sums have one order on every GPU.
constexpr int64_t kStretch = 16384;
constexpr int64_t kMostBlocks = 2048;

int64_t Blocks(int64_t count) { return std::min(CeilDivide(count, kStretch), kMostBlocks); }

// Calls body(begin of a pack) for the packs of this thread.
template <int kLanes, typename Body>
__device__ void ForPacksOf(int64_t count, const Body& body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kLanes;
#pragma unroll 4
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kLanes; i < count;
       i += step) {
    body(i);
  }
}

template <int kLanes>
__global__ void __launch_bounds__(kThreads)
    StatisticsKernel(const float* gradient, int64_t count, double* partials) {
  __shared__ double sums[3][kWarps];
  double l1 = 0, squares = 0, non_finite = 0;
  ForPacksOf<kLanes>(count, [&](int64_t i) {
    const Pack<kLanes> pack = Load<kLanes>(gradient + i);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float g = pack.lane[k];
      const bool finite = fabsf(g) < INFINITY;
      const double wide = finite ? static_cast<double>(g) : 0.0;
      l1 += fabs(wide);
      squares += wide * wide;
      non_finite += finite ? 0.0 : 1.0;
    }
  });
  l1 = BlockSum(l1, sums[0]);
  squares = BlockSum(squares, sums[1]);
  non_finite = BlockSum(non_finite, sums[2]);
  if (threadIdx.x != 0) return;
  partials[blockIdx.x] = l1;
  partials[gridDim.x + blockIdx.x] = squares;
  partials[2 * gridDim.x + blockIdx.x] = non_finite;
}

// sums[s] += partials[s][0] + partials[s][1] + ..., one block a sum.
__global__ void __launch_bounds__(kThreads)
    AddUpKernel(const double* partials, int64_t count, double* sums) {
  __shared__ double warps[kWarps];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += partials[blockIdx.x * count + i];
  sum = BlockSum(sum, warps);
  if (threadIdx.x == 0) sums[blockIdx.x] += sum;
}

// One pass over everything: what is written is in registers when its sum is taken.
template <int kLanes, bool kWithSum>
__global__ void __launch_bounds__(kThreads)
    AdamWKernel(AdamWFactors f, const float* gradient, int64_t count, float* parameter,
                float* first, float* second, double* partials) {
  __shared__ double warps[kWarps];
  double sum = 0;
  ForPacksOf<kLanes>(count, [&](int64_t i) {
    const Pack<kLanes> g = Load<kLanes>(gradient + i);
    Pack<kLanes> p = Load<kLanes>(parameter + i);
    Pack<kLanes> m = Load<kLanes>(first + i);
    Pack<kLanes> v = Load<kLanes>(second + i);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float scaled = g.lane[k] * f.gradient_scale;
      m.lane[k] = f.beta1 * m.lane[k] + f.one_minus_beta1 * scaled;
      v.lane[k] = f.beta2 * v.lane[k] + f.one_minus_beta2 * (scaled * scaled);
      const float denominator = sqrtf(v.lane[k]) * f.root_scale + f.eps;
      p.lane[k] = p.lane[k] * f.keep - f.step_size * (m.lane[k] / denominator);
      if (kWithSum) sum += static_cast<double>(scaled * scaled / denominator);
    }
    Store(m, first + i);
    Store(v, second + i);
    Store(p, parameter + i);
  });
  if (!kWithSum) return;
  sum = BlockSum(sum, warps);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

template <int kLanes>
__global__ void __launch_bounds__(kThreads)
    SgdKernel(SgdFactors f, const float* gradient, int64_t count, float* parameter,
              float* momentum) {
  ForPacksOf<kLanes>(count, [&](int64_t i) {
    const Pack<kLanes> g = Load<kLanes>(gradient + i);
    Pack<kLanes> p = Load<kLanes>(parameter + i);
    Pack<kLanes> b = Load<kLanes>(momentum + i);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      b.lane[k] = f.keep * b.lane[k] + (g.lane[k] * f.gradient_scale + f.decay * p.lane[k]);
      p.lane[k] -= f.rate * b.lane[k];
    }
    Store(b, momentum + i);
    Store(p, parameter + i);
  });
}

// Whether vectors of `count` floats take packs of 4.
template <typename... Vectors>
bool TakePacks(int64_t count, const Vectors*... vectors) {
  return count % 4 == 0 && ((reinterpret_cast<uintptr_t>(vectors) % 16 == 0) && ...);
}

}  // namespace

int64_t PassPartials(int64_t count) { return 3 * Blocks(count); }

cudaError_t AddGradientStatistics(const float* gradient, int64_t count, double* partials,
                                  double* statistics, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const int64_t blocks = Blocks(count);
  const cudaError_t error =
      Launch(TakePacks(count, gradient) ? StatisticsKernel<4> : StatisticsKernel<1>,
             static_cast<unsigned>(blocks), kThreads, 0, stream, gradient, count, partials);
  if (error != cudaSuccess) return error;
  return Launch(AddUpKernel, 3, kThreads, 0, stream, partials, blocks, statistics);
}

cudaError_t UpdateByAdamW(const AdamWFactors& factors, const float* gradient, int64_t count,
                          float* parameter, float* first, float* second, double* partials,
                          double* adam_sum, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const int64_t blocks = Blocks(count);
  const bool packs = TakePacks(count, gradient, parameter, first, second);
  const auto kernel = adam_sum != nullptr ? (packs ? AdamWKernel<4, true> : AdamWKernel<1, true>)
                                          : (packs ? AdamWKernel<4, false> : AdamWKernel<1, false>);
  const cudaError_t error = Launch(kernel, static_cast<unsigned>(blocks), kThreads, 0, stream,
                                   factors, gradient, count, parameter, first, second, partials);
  if (error != cudaSuccess || adam_sum == nullptr) return error;
  return Launch(AddUpKernel, 1, kThreads, 0, stream, partials, blocks, adam_sum);
}

cudaError_t UpdateBySgd(const SgdFactors& factors, const float* gradient, int64_t count,
                        float* parameter, float* momentum, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const bool packs = TakePacks(count, gradient, parameter, momentum);
  return Launch(packs ? SgdKernel<4> : SgdKernel<1>, static_cast<unsigned>(Blocks(count)), kThreads,
                0, stream, factors, gradient, count, parameter, momentum);
}

}  // namespace longspan::cuda
