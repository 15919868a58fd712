#include "kernels/cuda/normalization.cuh"

#include <algorithm>

#include "kernels/cuda/packs.cuh"

namespace longspan::cuda {
namespace {

constexpr int kWarps = kLargestBlock / kWarp;

// The packs of a row that one thread handles: every blockDim.x-th. The first kHeld of them stay in
// registers, where that is all of them; with kHeld = 0 they are loaded again for every pass, from
// the cache.
template <int kLanes, int kHeld, typename Body>
__device__ void ForPacks(int64_t width, const Body& body) {
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kLanes;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kLanes;
  if constexpr (kHeld > 0) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (first + i * step < width) body(first + i * step, i);
    }
  } else {
    for (int64_t c = first; c < width; c += step) body(c, 0);
  }
}

// One block a row. X: of x; C: of weight, bias and y.
template <typename X, typename C, int kLanes, int kHeld, bool kCentred>
__global__ void __launch_bounds__(kLargestBlock)
    ForwardKernel(Rows<const X> x, const C* weight, const C* bias, int64_t width, float eps,
                  Rows<C> y, float* mean, float* rstd) {
  __shared__ float sums[2][kWarps];
  const int64_t row = blockIdx.x;
  const X* const from = x[row];
  Pack<kLanes> held[kHeld > 0 ? kHeld : 1];
  float sum = 0;
  ForPacks<kLanes, kHeld>(width, [&](int64_t c, int i) {
    held[i] = Load<kLanes>(from + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float v = held[i].lane[k];
      sum += kCentred ? v : v * v;
    }
  });
  sum = BlockSum(sum, sums[0]);
  const float count = static_cast<float>(width);
  const float centre = kCentred ? sum / count : 0.0f;
  if (kCentred) {
    // Squares of what is left without the mean: they keep their digits beside a large one.
    sum = 0;
    ForPacks<kLanes, kHeld>(width, [&](int64_t c, int i) {
      if (kHeld == 0) held[i] = Load<kLanes>(from + c);
#pragma unroll
      for (int k = 0; k < kLanes; ++k) {
        const float v = held[i].lane[k] - centre;
        sum += v * v;
      }
    });
    sum = BlockSum(sum, sums[1]);
  }
  const float scale = 1.0f / sqrtf(sum / count + eps);
  if (threadIdx.x == 0) {
    rstd[row] = scale;
    if (kCentred) mean[row] = centre;
  }
  C* const to = y[row];
  ForPacks<kLanes, kHeld>(width, [&](int64_t c, int i) {
    if (kHeld == 0) held[i] = Load<kLanes>(from + c);
    const Pack<kLanes> w = Load<kLanes>(weight + c);
    Pack<kLanes> b = {};
    if (kCentred) b = Load<kLanes>(bias + c);
    Pack<kLanes> result;
#pragma unroll
    for (int k = 0; k < kLanes; ++k)
      result.lane[k] = (held[i].lane[k] - centre) * scale * w.lane[k] + b.lane[k];
    Store(result, to + c);
  });
}

// With n = (x - mean) * rstd and g = dy * weight: dx += rstd * (g - mean(g) - n * mean(g * n)),
// where RMSNorm has no mean(g), and the sums of dy * n and dy over the rows of this block in
// partials[blockIdx.x]. One block a chunk of rows.
template <typename X, typename C, int kLanes, int kHeld, bool kCentred>
__global__ void __launch_bounds__(kLargestBlock)
    BackwardKernel(Rows<const C> dy, Rows<const X> x, const C* weight, const float* mean,
                   const float* rstd, int64_t rows, int64_t width, int64_t chunk_rows, Rows<X> dx,
                   float* weight_partials, float* bias_partials) {
  // Two of each: a row's sums are read while the next row's may be written.
  __shared__ float normal_sums[2][kWarps], plain_sums[2][kWarps];
  constexpr int kSlots = kHeld > 0 ? kHeld : 1;
  float* const dweight = weight_partials + blockIdx.x * width;
  float* const dbias = kCentred ? bias_partials + blockIdx.x * width : nullptr;
  Pack<kLanes> weight_sum[kSlots] = {}, bias_sum[kSlots] = {};
  if (kHeld == 0) {
    ForPacks<kLanes, kHeld>(width, [&](int64_t c, int) {
      Store(Pack<kLanes>{}, dweight + c);
      if (kCentred) Store(Pack<kLanes>{}, dbias + c);
    });
  }
  const int64_t begin = blockIdx.x * chunk_rows;
  const int64_t end = begin + chunk_rows < rows ? begin + chunk_rows : rows;
  for (int64_t row = begin; row < end; ++row) {
    const float scale = rstd[row], centre = kCentred ? mean[row] : 0.0f;
    const int turn = static_cast<int>(row % 2);
    const C* const gradient = dy[row];
    const X* const input = x[row];
    X* const to = dx[row];
    Pack<kLanes> g[kSlots], n[kSlots];  // g: dy at first, then dy * weight
    Pack<kLanes> old[kSlots];           // of dx: on its way while the sums are taken
    float dot = 0, plain = 0;
    ForPacks<kLanes, kHeld>(width, [&](int64_t c, int i) {
      g[i] = Load<kLanes>(gradient + c);
      n[i] = Load<kLanes>(input + c);
      if (kHeld > 0) old[i] = Load<kLanes>(to + c);
      const Pack<kLanes> w = Load<kLanes>(weight + c);
      if (kHeld == 0) {
        weight_sum[i] = Load<kLanes>(dweight + c);
        if (kCentred) bias_sum[i] = Load<kLanes>(dbias + c);
      }
#pragma unroll
      for (int k = 0; k < kLanes; ++k) {
        n[i].lane[k] = (n[i].lane[k] - centre) * scale;
        weight_sum[i].lane[k] += g[i].lane[k] * n[i].lane[k];
        if (kCentred) bias_sum[i].lane[k] += g[i].lane[k];
        g[i].lane[k] *= w.lane[k];
        dot += g[i].lane[k] * n[i].lane[k];
        plain += g[i].lane[k];
      }
      if (kHeld == 0) {
        Store(weight_sum[i], dweight + c);
        if (kCentred) Store(bias_sum[i], dbias + c);
      }
    });
    const float count = static_cast<float>(width);
    const float mean_gn = BlockSum(dot, normal_sums[turn]) / count;
    const float mean_g = kCentred ? BlockSum(plain, plain_sums[turn]) / count : 0.0f;
    ForPacks<kLanes, kHeld>(width, [&](int64_t c, int i) {
      if (kHeld == 0) {
        old[i] = Load<kLanes>(to + c);
        g[i] = Load<kLanes>(gradient + c);
        n[i] = Load<kLanes>(input + c);
        const Pack<kLanes> w = Load<kLanes>(weight + c);
#pragma unroll
        for (int k = 0; k < kLanes; ++k) {
          n[i].lane[k] = (n[i].lane[k] - centre) * scale;
          g[i].lane[k] *= w.lane[k];
        }
      }
#pragma unroll
      for (int k = 0; k < kLanes; ++k)
        old[i].lane[k] += scale * (g[i].lane[k] - mean_g - n[i].lane[k] * mean_gn);
      Store(old[i], to + c);
    });
  }
  if (kHeld > 0) {
    ForPacks<kLanes, kHeld>(width, [&](int64_t c, int i) {
      Store(weight_sum[i], dweight + c);
      if (kCentred) Store(bias_sum[i], dbias + c);
    });
  }
}

// Depends on rows alone, so sums have one order on every GPU: 256 blocks where there are enough
// rows, of at least 8 each.
int64_t ChunkRows(int64_t rows) { return std::max<int64_t>(8, CeilDivide(rows, 256)); }

// kLanes and kHeld for which body.template operator()<kLanes, kHeld>() is called.
template <int kWideLanes, typename Body>
cudaError_t ByWidth(int64_t width, bool takes_packs, const Body& body) {
  // What a block of kLargestBlock threads holds in registers.
  constexpr int kHeld = 16 / kWideLanes;
  if (!takes_packs) return body.template Run<1, 0>();
  if (width <= int64_t{kLargestBlock} * kWideLanes * kHeld)
    return body.template Run<kWideLanes, kHeld>();
  return body.template Run<kWideLanes, 0>();
}

// Threads for a row: each has kHeld packs, so that its loads are in flight together.
unsigned RowThreads(int64_t width, int lanes, int held) {
  return ThreadsFor(CeilDivide(width, static_cast<int64_t>(lanes) * std::max(1, held)));
}

template <typename X, typename C, bool kCentred>
struct Forward {
  const TensorView &x, &weight, &bias, &y, &mean, &rstd;
  float eps;
  cudaStream_t stream;
  template <int kLanes, int kHeld>
  cudaError_t Run() const {
    const int64_t width = x.dim(1);
    return Launch(ForwardKernel<X, C, kLanes, kHeld, kCentred>, static_cast<unsigned>(x.dim(0)),
                  RowThreads(width, kLanes, kHeld), 0, stream, RowsOf<const X>(x),
                  static_cast<const C*>(weight.raw()), static_cast<const C*>(bias.raw()), width,
                  eps, RowsOf<C>(y), static_cast<float*>(mean.raw()),
                  static_cast<float*>(rstd.raw()));
  }
};

template <typename X, typename C, bool kCentred>
struct Backward {
  const TensorView &dy, &x, &weight, &mean, &rstd, &dx, &dweight, &dbias;
  float* partials;
  cudaStream_t stream;
  template <int kLanes, int kHeld>
  cudaError_t Run() const {
    const int64_t rows = x.dim(0), width = x.dim(1), chunk_rows = ChunkRows(rows);
    const int64_t chunks = CeilDivide(rows, chunk_rows);
    float* const bias_partials = partials + chunks * width;
    cudaError_t error =
        Launch(BackwardKernel<X, C, kLanes, kHeld, kCentred>, static_cast<unsigned>(chunks),
               RowThreads(width, kLanes, kHeld), 0, stream, RowsOf<const C>(dy), RowsOf<const X>(x),
               static_cast<const C*>(weight.raw()), static_cast<const float*>(mean.raw()),
               static_cast<const float*>(rstd.raw()), rows, width, chunk_rows, RowsOf<X>(dx),
               partials, bias_partials);
    if (error == cudaSuccess)
      error = AddPartials(partials, chunks, width, dweight.data<float>(), stream);
    if (error == cudaSuccess && kCentred)
      error = AddPartials(bias_partials, chunks, width, dbias.data<float>(), stream);
    return error;
  }
};

// Calls Body<X, C, centred>: x has the type of the others, or is f32 where they are bf16.
template <template <typename, typename, bool> class Body, bool kCentred, typename... Parameters>
cudaError_t ByType(DType x, DType c, int64_t width, bool takes_packs,
                   const Parameters&... parameters) {
  if (c == DType::kF32)
    return ByWidth<4>(width, takes_packs, Body<float, float, kCentred>{parameters...});
  if (x == DType::kF32)
    return ByWidth<8>(width, takes_packs, Body<float, bf16, kCentred>{parameters...});
  return ByWidth<8>(width, takes_packs, Body<bf16, bf16, kCentred>{parameters...});
}

int WideLanes(DType c) { return c == DType::kF32 ? 4 : 8; }

}  // namespace

cudaError_t NormForward(const TensorView& x, const TensorView& weight, const TensorView& bias,
                        float eps, const TensorView& y, const TensorView& mean,
                        const TensorView& rstd, cudaStream_t stream) {
  if (x.empty()) return cudaSuccess;
  const bool centred = mean.rank() > 0;
  const int lanes = WideLanes(y.dtype());
  const bool packs = TakesPacks(x, lanes) && TakesPacks(y, lanes) && TakesPacks(weight, lanes) &&
                     (!centred || TakesPacks(bias, lanes));
  return centred ? ByType<Forward, true>(x.dtype(), y.dtype(), x.dim(1), packs, x, weight, bias, y,
                                         mean, rstd, eps, stream)
                 : ByType<Forward, false>(x.dtype(), y.dtype(), x.dim(1), packs, x, weight, bias, y,
                                          mean, rstd, eps, stream);
}

int64_t NormPartials(int64_t rows, int64_t width, bool with_bias) {
  return CeilDivide(rows, ChunkRows(rows)) * width * (with_bias ? 2 : 1);
}

cudaError_t NormBackward(const TensorView& dy, const TensorView& x, const TensorView& weight,
                         const TensorView& mean, const TensorView& rstd, const TensorView& dx,
                         const TensorView& dweight, const TensorView& dbias, float* partials,
                         cudaStream_t stream) {
  if (x.empty()) return cudaSuccess;
  const bool centred = mean.rank() > 0;
  const int lanes = WideLanes(dy.dtype());
  const bool packs = TakesPacks(dy, lanes) && TakesPacks(x, lanes) && TakesPacks(dx, lanes) &&
                     TakesPacks(weight, lanes);
  return centred ? ByType<Backward, true>(x.dtype(), dy.dtype(), x.dim(1), packs, dy, x, weight,
                                          mean, rstd, dx, dweight, dbias, partials, stream)
                 : ByType<Backward, false>(x.dtype(), dy.dtype(), x.dim(1), packs, dy, x, weight,
                                           mean, rstd, dx, dweight, dbias, partials, stream);
}

}  // namespace longspan::cuda
