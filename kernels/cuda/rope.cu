#include "kernels/cuda/rope.cuh"

#include <cmath>

#include "kernels/cuda/rows.cuh"

namespace longspan::cuda {
namespace {

constexpr int kMostPairs = static_cast<int>(kMostRopeHeadDim / 2);

// Of one position, for each pair of a head. A launch's parameter: 2 KiB.
struct QuarterTurns {
  double turns[kMostPairs];
};

// (rows, heads, head_dim).
template <typename T>
struct Heads {
  T* data;
  int64_t row_stride, head_stride;
};

// One block a row. The angles are worked out once for all heads: in f64, because at position 2^21
// an f32 angle has no digits left after the point. What is left after whole quarter turns is within
// +-pi/4.
template <typename T, int kLanes>
__global__ void __launch_bounds__(256)
    RotateKernel(Heads<T> x, const int* positions, const __grid_constant__ QuarterTurns quarters,
                 int heads, int pairs, float direction) {
  __shared__ float cosine[kMostPairs], sine[kMostPairs];
  const int64_t row = blockIdx.x;
  const double position = positions[row];
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += static_cast<int>(blockDim.x)) {
    const double turns = position * quarters.turns[i], whole = rint(turns);
    const float rest = static_cast<float>((turns - whole) * 1.57079632679489661923);
    const int quadrant = static_cast<int>(static_cast<long long>(whole) & 3);
    const float s = sinf(rest), c = cosf(rest);
    const bool swap = (quadrant & 1) != 0;
    const float swapped_cosine = swap ? s : c, swapped_sine = swap ? c : s;
    cosine[i] = quadrant == 1 || quadrant == 2 ? -swapped_cosine : swapped_cosine;
    sine[i] = direction * (quadrant >= 2 ? -swapped_sine : swapped_sine);
  }
  __syncthreads();
  const int packs = pairs / kLanes;
  for (int i = static_cast<int>(threadIdx.x); i < heads * packs;
       i += static_cast<int>(blockDim.x)) {
    const int pair = i % packs * kLanes;
    T* const low = x.data + row * x.row_stride + i / packs * x.head_stride + pair;
    T* const high = low + pairs;
    Pack<kLanes> a = Load<kLanes>(low), b = Load<kLanes>(high);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float c = cosine[pair + k], s = sine[pair + k], old = a.lane[k];
      a.lane[k] = old * c - b.lane[k] * s;
      b.lane[k] = b.lane[k] * c + old * s;
    }
    Store(a, low);
    Store(b, high);
  }
}

template <typename T, int kLanes>
cudaError_t Rotate(const TensorView& x, const TensorView& positions, const QuarterTurns& quarters,
                   float direction, cudaStream_t stream) {
  const int heads = static_cast<int>(x.dim(1)), pairs = static_cast<int>(x.dim(2) / 2);
  return Launch(RotateKernel<T, kLanes>, static_cast<unsigned>(x.dim(0)),
                ThreadsFor(static_cast<int64_t>(heads) * pairs / kLanes, 256), 0, stream,
                Heads<T>{static_cast<T*>(x.raw()), x.stride(0), x.stride(1)},
                static_cast<const int*>(positions.raw()), quarters, heads, pairs, direction);
}

}  // namespace

cudaError_t RotateRows(const TensorView& x, const TensorView& positions, double base,
                       float direction, cudaStream_t stream) {
  if (x.empty()) return cudaSuccess;
  const int64_t head_dim = x.dim(2), pairs = head_dim / 2;
  QuarterTurns quarters = {};
  for (int64_t i = 0; i < pairs; ++i) {
    quarters.turns[i] =
        std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)) /
        1.57079632679489661923;
  }
  const int lanes = x.dtype() == DType::kBF16 ? 8 : 4;
  const bool packs = pairs % lanes == 0 && TakesPacks(x, lanes);
  if (x.dtype() == DType::kF32) {
    return packs ? Rotate<float, 4>(x, positions, quarters, direction, stream)
                 : Rotate<float, 1>(x, positions, quarters, direction, stream);
  }
  return packs ? Rotate<bf16, 8>(x, positions, quarters, direction, stream)
               : Rotate<bf16, 1>(x, positions, quarters, direction, stream);
}

}  // namespace longspan::cuda
