// Ring attention over the sequences of one ring (a set of groups with one ordered rank list).
//
// Member r of d holds parts r and 2d-1-r of each sequence (zigzag). KV of member j visits j-1, ...,
// 0, d-1, ..., j+1 and sheds its second part after member 0; every step costs the same. The next
// member's KV travels while this one computes. In the backward pass KV travels again, dK and dV
// travel with it and arrive home after one more hop, beside a part of the member's own block that
// was kept for it; every block uses the global log-sum-exp and the final output. All accumulation
// is FP32. Lengths need not divide: parts may differ by a token, or be empty; nothing is padded.
// Whole sequences of the same micro-batch are computed while keys and values travel.
//
// With layout.head_parallel = h > 1 members of a block of h neighbours first exchange their rows
// for a share of the heads (head_exchange.h): q, k and v, in the backward pass those of dO, L and
// delta too. The ring then has d / h members, a share of h times the rows and 1 / h of the heads;
// its messages are as long, and fewer by h. The results (O and L, or dQ, dK and dV) go back the
// same way. h divides the number of heads of keys and values.
#ifndef LONGSPAN_PARALLEL_RING_ATTENTION_H_
#define LONGSPAN_PARALLEL_RING_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "parallel/ring_layout.h"
#include "parallel/ring_workspace.h"
#include "parallel/transport/transport.h"

namespace longspan {

// How attention is computed, alike on all ranks.
struct AttentionOptions {
  // What keys and values travel as between ranks: f32, or bf16 for half the bytes (rounded to
  // nearest; a rank's own stay as they are). On a GPU they are bf16 already. Gradients, and what
  // members exchange for heads, always travel as f32.
  DType wire = DType::kF32;
  // A query sees so many positions, its own included; 0: all before it. Members outside of a window
  // do not communicate. Spans of whole sequences carry their window themselves. In a ring with a
  // sequence longer than its window heads are not split, whatever its layout says.
  int64_t window = 0;
};

// Row-major; the first layout.rows() rows are the ring's. q, out: (rows, heads, head_dim); k, v:
// (rows, kv_heads, head_dim); lse: (rows, heads), natural log; dtypes as in kernels/attention.h.
// Rows may be strided. `whole`: causal spans of whole sequences in rows after the ring's, of the
// same tensors; they are computed too, while keys and values travel. Memory for travelling blocks
// comes from `workspace`, under the tag "ring", and is kept until the call's work on `stream` is
// done. Returns at once with the work queued; transport failures make the stream fail.
absl::Status RingAttentionForward(const RingLayout& layout, const std::vector<AttentionSpan>& whole,
                                  const AttentionOptions& options, TensorView q, TensorView k,
                                  TensorView v, float scale, TensorView out, TensorView lse,
                                  Transport& transport, Stream& stream,
                                  RingWorkspace* workspace = nullptr);

// dq, dk, dv accumulate (+=), as in kernels/attention.h. `lse` is the forward result, `delta` that
// of AttentionDelta, both of all rows.
absl::Status RingAttentionBackward(const RingLayout& layout,
                                   const std::vector<AttentionSpan>& whole,
                                   const AttentionOptions& options, TensorView q, TensorView k,
                                   TensorView v, TensorView dout, TensorView lse, TensorView delta,
                                   float scale, TensorView dq, TensorView dk, TensorView dv,
                                   Transport& transport, Stream& stream,
                                   RingWorkspace* workspace = nullptr);

// Bytes that this member sends for one layer's forward, and for its backward pass.
int64_t RingForwardBytes(const RingLayout& layout, const AttentionOptions& options,
                         const HeadCounts& heads);
int64_t RingBackwardBytes(const RingLayout& layout, const AttentionOptions& options,
                          const HeadCounts& heads);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_RING_ATTENTION_H_
