#include "kernels/cuda/cross_entropy.cuh"

#include "kernels/cuda/packs.cuh"

namespace longspan::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;

// One block a row: one pass for the largest logit and the sum, one for the gradient.
template <int kLanes, LogitGradient kGradient>
__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(Rows<float> logits, const int* targets, int64_t vocabulary, float* losses) {
  __shared__ float largest_of_warps[kWarps], sums[kWarps];
  const int64_t row = blockIdx.x;
  const int64_t target = targets[row];
  if (target < 0 || target >= vocabulary) __trap();
  float* const at = logits[row];
  const float target_logit = at[target];
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kLanes;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kLanes;

  // Of this thread's logits: the largest, and the sum of exp(logit - largest). fmaxf passes over
  // NaN, the sum does not.
  float largest = -INFINITY, sum = 0;
#pragma unroll 2
  for (int64_t c = first; c < vocabulary; c += step) {
    const Pack<kLanes> pack = Load<kLanes>(at + c);
    float top = pack.lane[0];
#pragma unroll
    for (int k = 1; k < kLanes; ++k) top = fmaxf(top, pack.lane[k]);
    if (top > largest) {
      sum *= expf(largest - top);
      largest = top;
    }
    // Before any number was seen there is nothing to subtract.
    const float reference = largest == -INFINITY ? 0.0f : largest;
#pragma unroll
    for (int k = 0; k < kLanes; ++k) sum += expf(pack.lane[k] - reference);
  }
  const float warp_largest = WarpMax(largest);
  if (threadIdx.x % kWarp == 0) largest_of_warps[threadIdx.x / kWarp] = warp_largest;
  __syncthreads();
  float row_largest = -INFINITY;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / kWarp; ++warp)
    row_largest = fmaxf(row_largest, largest_of_warps[warp]);
  // A thread without a logit, or with none above -inf, has a sum that is 0 or NaN as it is.
  const float row_sum =
      BlockSum(largest == -INFINITY ? sum : sum * expf(largest - row_largest), sums);
  // The difference first: for large logits it is what carries the digits.
  if (threadIdx.x == 0) losses[row] = (row_largest - target_logit) + logf(row_sum);

  if constexpr (kGradient != LogitGradient::kNone) {
    const float scale = 1.0f / row_sum;
    // In bf16 the gradient lies over logits that other threads have not read yet, but for those of
    // this round and before: all threads read, then all write.
    const int64_t rounds = (vocabulary + step - 1) / step;
    for (int64_t round = 0; round < rounds; ++round) {
      const int64_t c = first + round * step;
      Pack<kLanes> pack = {};
      if (c < vocabulary) {
        pack = Load<kLanes>(at + c);
#pragma unroll
        for (int k = 0; k < kLanes; ++k) {
          pack.lane[k] = expf(pack.lane[k] - row_largest) * scale;
          if (c + k == target) pack.lane[k] -= 1.0f;
        }
      }
      if constexpr (kGradient == LogitGradient::kBF16) {
        __syncthreads();
        if (c < vocabulary) Store(pack, reinterpret_cast<bf16*>(at) + c);
      } else {
        if (c < vocabulary) Store(pack, at + c);
      }
    }
  }
}

template <int kLanes, LogitGradient kGradient>
cudaError_t LaunchRows(const TensorView& logits, const TensorView& targets,
                       const TensorView& losses, cudaStream_t stream) {
  const int64_t vocabulary = logits.dim(1);
  return Launch(CrossEntropyKernel<kLanes, kGradient>, static_cast<unsigned>(logits.dim(0)),
                ThreadsFor(CeilDivide(vocabulary, kLanes), kThreads), 0, stream,
                RowsOf<float>(logits), static_cast<const int*>(targets.raw()), vocabulary,
                static_cast<float*>(losses.raw()));
}

template <int kLanes>
cudaError_t ByGradient(const TensorView& logits, const TensorView& targets,
                       const TensorView& losses, LogitGradient gradient, cudaStream_t stream) {
  switch (gradient) {
    case LogitGradient::kNone:
      return LaunchRows<kLanes, LogitGradient::kNone>(logits, targets, losses, stream);
    case LogitGradient::kF32:
      return LaunchRows<kLanes, LogitGradient::kF32>(logits, targets, losses, stream);
    case LogitGradient::kBF16:
      return LaunchRows<kLanes, LogitGradient::kBF16>(logits, targets, losses, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t CrossEntropyRows(const TensorView& logits, const TensorView& targets,
                             const TensorView& losses, LogitGradient gradient,
                             cudaStream_t stream) {
  if (logits.dim(0) == 0) return cudaSuccess;
  return TakesPacks(logits, 4) ? ByGradient<4>(logits, targets, losses, gradient, stream)
                               : ByGradient<1>(logits, targets, losses, gradient, stream);
}

}  // namespace longspan::cuda
