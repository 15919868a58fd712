#include "kernels/cuda/optimizer_pass.cuh"

#include <algorithm>
#include <type_traits>

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

// The keys of kernels/device/content_sum.cc, worked out where they are needed: that is cheaper than
// a table, beside the memory that an update goes through.
constexpr int64_t kSpan = 1024;

__device__ uint64_t SplitMix(uint64_t n) {
  uint64_t z = (n + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// The content sums of kVectors vectors, over the packs of one thread.
template <int kVectors, int kLanes>
class WrittenPacks {
 public:
  explicit __device__ WrittenPacks(const ContentSums& written) : written_(written) {}

  // A pack lies within a span. pack: the index of its first element.
  __device__ void At(int64_t pack) {
    const uint64_t position = static_cast<uint64_t>(written_.position + pack);
    scale_ = SplitMix(kSpan + position / kSpan) | 1;
#pragma unroll
    for (int k = 0; k < kLanes; ++k)
      keys_[k] = static_cast<uint32_t>(SplitMix((position + k) % kSpan) >> 32) | 1;
  }
  __device__ void Add(int vector, const Pack<kLanes>& pack) {
    uint64_t sum = 0;
#pragma unroll
    for (int k = 0; k < kLanes; ++k)
      sum += static_cast<uint64_t>(__float_as_uint(pack.lane[k])) * keys_[k];
    sums_[vector] += scale_ * sum;
  }
  // Of integers: the order of blocks makes no difference. `shared`: one element a warp and vector.
  __device__ void AddUp(unsigned long long (*shared)[kWarps]) {
    for (int vector = 0; vector < kVectors; ++vector) {
      const unsigned long long sum = BlockSum(sums_[vector], shared[vector]);
      if (threadIdx.x == 0) atomicAdd(written_.sums + vector, sum);
    }
  }

 private:
  const ContentSums written_;
  uint64_t scale_ = 0;
  uint32_t keys_[kLanes] = {};
  unsigned long long sums_[kVectors] = {};
};

// One pass over everything: what is written is in registers when its sums are taken.
template <int kLanes, bool kWithSum, bool kWithContent>
__global__ void __launch_bounds__(kThreads)
    AdamWKernel(AdamWFactors f, const float* gradient, int64_t count, float* parameter,
                float* first, float* second, double* partials, ContentSums written) {
  __shared__ double warps[kWarps];
  __shared__ unsigned long long content_warps[3][kWarps];
  WrittenPacks<3, kLanes> content(written);
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
    if (kWithContent) {
      content.At(i);
      content.Add(0, p);
      content.Add(1, m);
      content.Add(2, v);
    }
  });
  if (kWithContent) content.AddUp(content_warps);
  if (!kWithSum) return;
  sum = BlockSum(sum, warps);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

template <int kLanes, bool kWithContent>
__global__ void __launch_bounds__(kThreads)
    SgdKernel(SgdFactors f, const float* gradient, int64_t count, float* parameter, float* momentum,
              ContentSums written) {
  __shared__ unsigned long long content_warps[2][kWarps];
  WrittenPacks<2, kLanes> content(written);
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
    if (kWithContent) {
      content.At(i);
      content.Add(0, p);
      content.Add(1, b);
    }
  });
  if (kWithContent) content.AddUp(content_warps);
}

// Content sums take packs that lie within a span.
bool InSpans(const ContentSums& written) {
  return written.sums == nullptr || written.position % 4 == 0;
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
                          double* adam_sum, const ContentSums& written, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const int64_t blocks = Blocks(count);
  const bool packs = TakePacks(count, gradient, parameter, first, second) && InSpans(written);
  const bool content = written.sums != nullptr, with_sum = adam_sum != nullptr;
  const auto choose = [&](auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    if (content)
      return with_sum ? AdamWKernel<kLanes, true, true> : AdamWKernel<kLanes, false, true>;
    return with_sum ? AdamWKernel<kLanes, true, false> : AdamWKernel<kLanes, false, false>;
  };
  const auto kernel =
      packs ? choose(std::integral_constant<int, 4>()) : choose(std::integral_constant<int, 1>());
  const cudaError_t error =
      Launch(kernel, static_cast<unsigned>(blocks), kThreads, 0, stream, factors, gradient, count,
             parameter, first, second, partials, written);
  if (error != cudaSuccess || !with_sum) return error;
  return Launch(AddUpKernel, 1, kThreads, 0, stream, partials, blocks, adam_sum);
}

cudaError_t UpdateBySgd(const SgdFactors& factors, const float* gradient, int64_t count,
                        float* parameter, float* momentum, const ContentSums& written,
                        cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const bool packs = TakePacks(count, gradient, parameter, momentum) && InSpans(written);
  const auto kernel = written.sums != nullptr ? (packs ? SgdKernel<4, true> : SgdKernel<1, true>)
                                              : (packs ? SgdKernel<4, false> : SgdKernel<1, false>);
  return Launch(kernel, static_cast<unsigned>(Blocks(count)), kThreads, 0, stream, factors,
                gradient, count, parameter, momentum, written);
}

}  // namespace longspan::cuda
