// The graphs of attention for cuDNN, and the cache of their plans.
//
// One kind of graph serves every call: `documents` slices of queries, each with its own range of
// keys, packed in memory in any order, with a causal mask that is aligned at the bottom right (the
// last query sees the last key) or none, and perhaps a sliding window under the causal one. A plan
// costs 0.4 to 2 s, so calls are rounded up to buckets and plans are kept.
#ifndef LONGSPAN_KERNELS_CUDA_CUDNN_ATTENTION_H_
#define LONGSPAN_KERNELS_CUDA_CUDNN_ATTENTION_H_

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

#include "absl/status/statusor.h"
#include "kernels/cuda/cudnn_graph.h"

namespace longspan::cuda {

// What a graph of attention depends on.
struct AttentionGraphShape {
  enum class Pass { kForward, kBackward };
  Pass pass = Pass::kForward;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t documents = 0;   // of one call
  int64_t query_rows = 0;  // of the longest document
  int64_t key_rows = 0;    // of the longest document
  bool causal = true;
  // With `causal`: keys that a query sees, its own included; 0: all.
  int64_t window = 0;
  // Documents have more key rows than keys: those behind are zeros that no query sees.
  bool pads_keys = false;
  // Backward: equal bits in every run, at the price of a workspace that grows with query_rows *
  // key_rows.
  bool deterministic = false;

  auto Key() const {
    return std::make_tuple(pass, heads, kv_heads, head_dim, documents, query_rows, key_rows, causal,
                           window, pads_keys, deterministic);
  }
  bool operator<(const AttentionGraphShape& other) const { return Key() < other.Key(); }
  // "backward, 32 heads (8 of keys) of 128, 8 documents of at most 8192 x 8192, causal".
  std::string ToString() const;
};

// Kernels of cuDNN have given NaN for documents of such lengths, of queries or of keys, where
// log-sum-exps are below -88. No plan is run on them.
inline bool GivesNan(int64_t length) { return length % 128 == 64; }

// The shape whose plan serves `exact`: rows a power of two or three quarters of one, at least 128,
// so that there are few plans. Rows beyond a document's length cost nothing but a look at that
// length. The number of documents stays, because some versions fail on documents of length zero:
// a caller cuts its documents into groups of powers of two.
AttentionGraphShape Bucketed(const AttentionGraphShape& exact);

// A finished plan and the ids of its tensors. Offsets say, in elements, where a document starts.
struct AttentionPlan {
  AttentionGraphShape shape;
  CudnnPlan plan;
  struct Ids {
    int64_t q = 0;      // bf16 (query rows, heads, head_dim), at query_offsets
    int64_t k = 0;      // bf16 (key rows, kv_heads, head_dim), at key_offsets
    int64_t v = 0;      // as k
    int64_t out = 0;    // f32, shaped as q; backward: read
    int64_t stats = 0;  // f32 (query rows, heads), at stats_offsets; backward: read
    // i64 (documents + 1)
    int64_t query_offsets = 0, key_offsets = 0, stats_offsets = 0, gradient_offsets = 0;
    // i32 (documents): rows of each, none of them zero or of a length that GivesNan()
    int64_t query_counts = 0, key_counts = 0;
    // Where keys are padded, i32 (documents): the keys among the rows.
    int64_t visible_keys = 0;
    // With a window, i32 (documents): the index of the key behind the one that the last query is
    // aligned with; the number of keys, or beyond.
    int64_t aligned_keys = 0;
    // Numbers in host memory: f32, f32, i32.
    int64_t scale = 0, minus_infinity = 0, window = 0;
    // Of the backward pass alone.
    int64_t dout = 0;   // bf16, shaped as q
    int64_t delta = 0;  // written: the row sums of dout * out, shaped as stats
    int64_t dq = 0;     // shaped as q: bf16 where `deterministic`, else f32 and zero before
    int64_t dk = 0;     // f32 (key rows, heads, head_dim), of all heads, at gradient_offsets
    int64_t dv = 0;     // as dk
    int64_t one = 0;    // f32 in host memory
  } ids;
};

// Builds and finalizes the graph of `shape`, exactly as it is; rows are multiples of 128, since
// versions up to 9.15.0 are wrong for others and GivesNan() holds for some. Unimplemented where
// cuDNN has no engine for it on that device. Thread-safe.
absl::StatusOr<AttentionPlan> PlanAttention(const CudnnLibrary& library, const CudnnTarget& target,
                                            const AttentionGraphShape& shape);

// The plans of one device by bucket, each made when it is first asked for. Thread-safe: other
// plans may be asked for while one is being made, so a thread at start can make those that a run
// will need.
class AttentionPlanner {
 public:
  AttentionPlanner(const CudnnLibrary& library, CudnnTarget target)
      : library_(library), target_(std::move(target)) {}

  // The plan for the bucket of `shape`. A refusal is kept too.
  absl::StatusOr<std::shared_ptr<const AttentionPlan>> PlanFor(const AttentionGraphShape& shape);
  // Plans made so far, refusals not counted.
  int64_t plans() const;

 private:
  struct Entry {
    bool done = false;
    absl::Status refusal;
    std::shared_ptr<const AttentionPlan> plan;
  };
  const CudnnLibrary& library_;
  const CudnnTarget target_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<AttentionGraphShape, Entry> entries_;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_CUDNN_ATTENTION_H_
