// The parts of attention that go row by row, on a CUDA stream: what lies before, between and behind
// the plans of cuDNN. Raw pointers to device memory, FP32 unless said. Every function launches and
// returns at once.
#ifndef LONGSPAN_KERNELS_CUDA_ATTENTION_ROWS_CUH_
#define LONGSPAN_KERNELS_CUDA_ATTENTION_ROWS_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace longspan::cuda {

// (rows, heads, head_dim), heads adjacent, `stride` elements between rows.
template <typename T>
struct HeadsView {
  T* data;
  int64_t stride;
};

// (rows, heads), `stride` elements between rows.
template <typename T>
struct PerHeadView {
  T* data;
  int64_t stride;
};

// (out, lse) = the merge of (out, lse) and a block's, as kernels/attention.h says.
cudaError_t MergeAttentionRows(HeadsView<const float> block_out, PerHeadView<const float> block_lse,
                               int64_t rows, int64_t heads, int64_t head_dim, HeadsView<float> out,
                               PerHeadView<float> lse, cudaStream_t stream);

// delta[row, head] = sum of dout * out.
cudaError_t AttentionDeltaRows(HeadsView<const float> out, HeadsView<const float> dout,
                               int64_t rows, int64_t heads, int64_t head_dim,
                               PerHeadView<float> delta, cudaStream_t stream);
cudaError_t AttentionDeltaRows(HeadsView<const float> out, HeadsView<const __nv_bfloat16> dout,
                               int64_t rows, int64_t heads, int64_t head_dim,
                               PerHeadView<float> delta, cudaStream_t stream);

// stand_in = dout * delta / |dout|^2: rows whose products with dout sum up to delta. Where dout is
// zero, so is the row.
cudaError_t StandInForOutput(HeadsView<const __nv_bfloat16> dout, const float* delta, int64_t rows,
                             int64_t heads, int64_t head_dim, float* stand_in, cudaStream_t stream);

// out = 0 and lse = -inf for rows [begin, begin + rows).
cudaError_t FillRowsWithoutKeys(HeadsView<float> out, float* lse, int64_t begin, int64_t rows,
                                int64_t heads, int64_t head_dim, cudaStream_t stream);

// Rows of a target to which rows of a source go.
struct RowRange {
  int64_t source_begin, target_begin, rows;
};

// target += source over ranges (device memory, `count` of them, none longer than `longest`, targets
// disjoint). source: (rows, target_heads * group, head_dim), contiguous, summed over each group of
// heads in order; target: (rows, target_heads, head_dim).
cudaError_t AddHeadRows(const float* source, int64_t target_heads, int64_t group, int64_t head_dim,
                        const RowRange* ranges, int64_t count, int64_t longest,
                        HeadsView<float> target, cudaStream_t stream);
cudaError_t AddHeadRows(const __nv_bfloat16* source, int64_t target_heads, int64_t group,
                        int64_t head_dim, const RowRange* ranges, int64_t count, int64_t longest,
                        HeadsView<float> target, cudaStream_t stream);

// target = source over ranges (device memory, `count` of them, none longer than `longest`), and
// zero in the rows behind a range up to a multiple of 128 of them. Both: (rows, width), contiguous.
cudaError_t CopyPaddedRows(const __nv_bfloat16* source, int64_t width, const RowRange* ranges,
                           int64_t count, int64_t longest, __nv_bfloat16* target,
                           cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_ATTENTION_ROWS_CUH_
