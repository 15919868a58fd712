#include "kernels/cuda/attention_rows.cuh"

#include <algorithm>

#include "kernels/cuda/packs.cuh"

namespace longspan::cuda {
namespace {

constexpr int kWarps = 8;  // of a block, one (row, head) each

// The (row, head) of this warp, counted as row * heads + head.
__device__ int64_t Item() {
  return static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
}

unsigned BlocksFor(int64_t items) { return static_cast<unsigned>((items + kWarps - 1) / kWarps); }

template <typename T>
__device__ T* HeadAt(HeadsView<T> view, int64_t item, int64_t heads, int64_t head_dim) {
  return view.data + item / heads * view.stride + item % heads * head_dim;
}

template <typename T>
__device__ T* PerHeadAt(PerHeadView<T> view, int64_t item, int64_t heads) {
  return view.data + item / heads * view.stride + item % heads;
}

__global__ void MergeKernel(HeadsView<const float> block_out, PerHeadView<const float> block_lse,
                            int64_t items, int64_t heads, int64_t head_dim, HeadsView<float> out,
                            PerHeadView<float> lse) {
  const int64_t item = Item();
  if (item >= items) return;
  const float infinity = __int_as_float(0x7f800000);
  float* const lse_at = PerHeadAt(lse, item, heads);
  const float old_lse = *lse_at, given_lse = *PerHeadAt(block_lse, item, heads);
  const float new_lse = given_lse == infinity ? -infinity : given_lse;
  const float largest = fmaxf(old_lse, new_lse);
  float old_share = 0, new_share = 0, merged = -infinity;
  if (largest != -infinity) {
    // exp(-inf) is 0: a side without keys has no share.
    const float a = expf(old_lse - largest), b = expf(new_lse - largest);
    merged = largest + logf(a + b);
    old_share = a / (a + b);
    new_share = b / (a + b);
  }
  const float* const from = HeadAt(block_out, item, heads, head_dim);
  float* const to = HeadAt(out, item, heads, head_dim);
  for (int64_t i = threadIdx.x % kWarp; i < head_dim; i += kWarp) {
    // A side without a share may hold anything.
    const float old_part = old_share == 0 ? 0 : to[i] * old_share;
    const float new_part = new_share == 0 ? 0 : from[i] * new_share;
    to[i] = old_part + new_part;
  }
  __syncwarp();
  if (threadIdx.x % kWarp == 0) *lse_at = merged;
}

template <typename T>
__global__ void DeltaKernel(HeadsView<const float> out, HeadsView<const T> dout, int64_t items,
                            int64_t heads, int64_t head_dim, PerHeadView<float> delta) {
  const int64_t item = Item();
  if (item >= items) return;
  const float* const o = HeadAt(out, item, heads, head_dim);
  const T* const g = HeadAt(dout, item, heads, head_dim);
  float sum = 0;
  for (int64_t i = threadIdx.x % kWarp; i < head_dim; i += kWarp) sum += o[i] * ToFloat(g[i]);
  sum = WarpSum(sum);
  if (threadIdx.x % kWarp == 0) *PerHeadAt(delta, item, heads) = sum;
}

__global__ void StandInKernel(HeadsView<const __nv_bfloat16> dout, const float* delta,
                              int64_t items, int64_t heads, int64_t head_dim, float* stand_in) {
  const int64_t item = Item();
  if (item >= items) return;
  const __nv_bfloat16* const g = HeadAt(dout, item, heads, head_dim);
  // Scaled by the largest, so that small gradients have squares too.
  float largest = 0;
  for (int64_t i = threadIdx.x % kWarp; i < head_dim; i += kWarp)
    largest = fmaxf(largest, fabsf(ToFloat(g[i])));
  largest = WarpMax(largest);
  float squares = 0;
  for (int64_t i = threadIdx.x % kWarp; i < head_dim; i += kWarp) {
    const float scaled = largest > 0 ? ToFloat(g[i]) / largest : 0;
    squares += scaled * scaled;
  }
  squares = WarpSum(squares);
  const float factor = largest > 0 ? delta[item] / largest / squares : 0;
  for (int64_t i = threadIdx.x % kWarp; i < head_dim; i += kWarp)
    stand_in[item * head_dim + i] = largest > 0 ? ToFloat(g[i]) / largest * factor : 0;
}

__global__ void FillKernel(HeadsView<float> out, float* lse, int64_t begin, int64_t items,
                           int64_t heads, int64_t head_dim) {
  const int64_t item = Item();
  if (item >= items) return;
  float* const to = HeadAt(out, begin * heads + item, heads, head_dim);
  for (int64_t i = threadIdx.x % kWarp; i < head_dim; i += kWarp) to[i] = 0;
  if (threadIdx.x % kWarp == 0) lse[begin * heads + item] = -__int_as_float(0x7f800000);
}

// One thread an element of the target, one grid row a range.
template <typename T>
__global__ void AddKernel(const T* source, int64_t target_heads, int64_t group, int64_t head_dim,
                          const RowRange* ranges, HeadsView<float> target) {
  const RowRange range = ranges[blockIdx.y];
  const int64_t width = target_heads * head_dim, elements = range.rows * width;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < elements;
       i += step) {
    const int64_t row = i / width, head = i % width / head_dim, column = i % head_dim;
    const T* const from =
        source + ((range.source_begin + row) * target_heads + head) * group * head_dim + column;
    float sum = 0;
    for (int64_t member = 0; member < group; ++member) sum += ToFloat(from[member * head_dim]);
    target.data[(range.target_begin + row) * target.stride + head * head_dim + column] += sum;
  }
}

template <typename T>
cudaError_t Add(const T* source, int64_t target_heads, int64_t group, int64_t head_dim,
                const RowRange* ranges, int64_t count, int64_t longest, HeadsView<float> target,
                cudaStream_t stream) {
  if (count == 0 || longest == 0) return cudaSuccess;
  const int64_t elements = longest * target_heads * head_dim;
  const unsigned blocks = static_cast<unsigned>(std::min<int64_t>((elements + 255) / 256, 4096));
  return Launch(AddKernel<T>, dim3(blocks, static_cast<unsigned>(count)), 256, 0, stream, source,
                target_heads, group, head_dim, ranges, target);
}

// One thread an element of the target, one grid row a range.
__global__ void CopyPaddedKernel(const __nv_bfloat16* source, int64_t width, const RowRange* ranges,
                                 __nv_bfloat16* target) {
  const RowRange range = ranges[blockIdx.y];
  const int64_t elements = range.rows * width, padded = (range.rows + 127) / 128 * 128 * width;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < padded;
       i += step) {
    target[range.target_begin * width + i] =
        i < elements ? source[range.source_begin * width + i] : FromFloat<__nv_bfloat16>(0.0f);
  }
}

}  // namespace

cudaError_t MergeAttentionRows(HeadsView<const float> block_out, PerHeadView<const float> block_lse,
                               int64_t rows, int64_t heads, int64_t head_dim, HeadsView<float> out,
                               PerHeadView<float> lse, cudaStream_t stream) {
  const int64_t items = rows * heads;
  if (items == 0) return cudaSuccess;
  return Launch(MergeKernel, BlocksFor(items), kWarps * kWarp, 0, stream, block_out, block_lse,
                items, heads, head_dim, out, lse);
}

cudaError_t AttentionDeltaRows(HeadsView<const float> out, HeadsView<const float> dout,
                               int64_t rows, int64_t heads, int64_t head_dim,
                               PerHeadView<float> delta, cudaStream_t stream) {
  const int64_t items = rows * heads;
  if (items == 0) return cudaSuccess;
  return Launch(DeltaKernel<float>, BlocksFor(items), kWarps * kWarp, 0, stream, out, dout, items,
                heads, head_dim, delta);
}

cudaError_t AttentionDeltaRows(HeadsView<const float> out, HeadsView<const __nv_bfloat16> dout,
                               int64_t rows, int64_t heads, int64_t head_dim,
                               PerHeadView<float> delta, cudaStream_t stream) {
  const int64_t items = rows * heads;
  if (items == 0) return cudaSuccess;
  return Launch(DeltaKernel<__nv_bfloat16>, BlocksFor(items), kWarps * kWarp, 0, stream, out, dout,
                items, heads, head_dim, delta);
}

cudaError_t StandInForOutput(HeadsView<const __nv_bfloat16> dout, const float* delta, int64_t rows,
                             int64_t heads, int64_t head_dim, float* stand_in,
                             cudaStream_t stream) {
  const int64_t items = rows * heads;
  if (items == 0) return cudaSuccess;
  return Launch(StandInKernel, BlocksFor(items), kWarps * kWarp, 0, stream, dout, delta, items,
                heads, head_dim, stand_in);
}

cudaError_t FillRowsWithoutKeys(HeadsView<float> out, float* lse, int64_t begin, int64_t rows,
                                int64_t heads, int64_t head_dim, cudaStream_t stream) {
  const int64_t items = rows * heads;
  if (items == 0) return cudaSuccess;
  return Launch(FillKernel, BlocksFor(items), kWarps * kWarp, 0, stream, out, lse, begin, items,
                heads, head_dim);
}

cudaError_t AddHeadRows(const float* source, int64_t target_heads, int64_t group, int64_t head_dim,
                        const RowRange* ranges, int64_t count, int64_t longest,
                        HeadsView<float> target, cudaStream_t stream) {
  return Add(source, target_heads, group, head_dim, ranges, count, longest, target, stream);
}

cudaError_t AddHeadRows(const __nv_bfloat16* source, int64_t target_heads, int64_t group,
                        int64_t head_dim, const RowRange* ranges, int64_t count, int64_t longest,
                        HeadsView<float> target, cudaStream_t stream) {
  return Add(source, target_heads, group, head_dim, ranges, count, longest, target, stream);
}

cudaError_t CopyPaddedRows(const __nv_bfloat16* source, int64_t width, const RowRange* ranges,
                           int64_t count, int64_t longest, __nv_bfloat16* target,
                           cudaStream_t stream) {
  if (count == 0 || longest == 0) return cudaSuccess;
  const int64_t elements = (longest + 127) / 128 * 128 * width;
  const unsigned blocks = static_cast<unsigned>(std::min<int64_t>((elements + 255) / 256, 4096));
  return Launch(CopyPaddedKernel, dim3(blocks, static_cast<unsigned>(count)), 256, 0, stream,
                source, width, ranges, target);
}

}  // namespace longspan::cuda
