// How a call of attention is cut into runs of cuDNN plans. Pure arithmetic, no GPU.
#ifndef LONGSPAN_KERNELS_CUDA_ATTENTION_BATCHES_H_
#define LONGSPAN_KERNELS_CUDA_ATTENTION_BATCHES_H_

#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/cudnn_attention.h"

namespace longspan::cuda {

// Consecutive queries and the keys they see: all, or up to the diagonal at the bottom right. Every
// query has a key. With a window, query i sees those of its keys j that are later than i +
// aligned_keys - query_count - window: aligned_keys is key_count, or more where keys end before the
// queries begin.
struct AttentionDocument {
  int64_t query_begin = 0, query_count = 0;
  int64_t key_begin = 0, key_count = 0;
  int64_t aligned_keys = 0;
};

// One run of a plan: documents of one kind of mask, a power of two of them.
struct AttentionBatch {
  bool causal = true;
  int64_t window = 0;
  // The plan runs on a copy of the keys, with rows of zeros behind those of each document, because
  // it must not see how many there are.
  bool pads_keys = false;
  std::vector<AttentionDocument> documents;

  // Rows of keys that the plan sees of a document.
  int64_t KeyRows(const AttentionDocument& document) const {
    return pads_keys ? (document.key_count + 127) / 128 * 128 : document.key_count;
  }
};

struct AttentionBatches {
  std::vector<AttentionBatch> batches;
  // Queries that see no key: their keys and counts say nothing.
  std::vector<AttentionDocument> without_keys;
};

// Queries of spans without any key are set apart, since versions of cuDNN differ in what they give
// them, and so are spans of no queries. The longest documents come first, so that a batch holds
// documents of like length. With `score_bytes` > 0, batches are single documents and blocks of
// queries for which heads * rounded rows * rounded keys * 2 is at most that (but never less than
// 128 queries): what a deterministic backward pass needs as workspace.
AttentionBatches CutIntoBatches(const std::vector<AttentionSpan>& spans, int64_t heads,
                                int64_t score_bytes);

// The exact shape of the plan for a batch.
AttentionGraphShape ShapeOf(const AttentionBatch& batch, AttentionGraphShape::Pass pass,
                            int64_t heads, int64_t kv_heads, int64_t head_dim, bool deterministic);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_ATTENTION_BATCHES_H_
