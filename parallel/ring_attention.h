// Ring attention over the sequences of one ring (a set of groups with one ordered rank list).
//
// Member r of d holds parts r and 2d-1-r of each sequence (zigzag). KV of member j visits j-1, ...,
// 0, d-1, ..., j+1 and sheds its second part after member 0; every step costs the same. The next
// member's KV travels while this one computes. In the backward pass KV travels again, dK and dV
// travel with it and arrive home after one more hop; every block uses the global log-sum-exp and
// the final output. All accumulation is FP32. Lengths need not divide: parts may differ by a token,
// or be empty; nothing is padded.
#ifndef LONGSPAN_PARALLEL_RING_ATTENTION_H_
#define LONGSPAN_PARALLEL_RING_ATTENTION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "parallel/transport/transport.h"

namespace longspan {

// One ring as one of its members sees it. The slices of its sequences lie one after the other in
// the first rows of the tensors given to the calls below, in the order of `lengths`; each slice
// holds part r, then part 2d-1-r.
struct RingLayout {
  std::vector<int> ranks;        // ring order, at least two
  int member = 0;                // this rank's index in `ranks`
  std::vector<int64_t> lengths;  // tokens of each whole sequence
  // Rows this member holds, over all sequences of the ring.
  int64_t rows() const;
  // Rows that member `index` holds.
  int64_t rows_of(int index) const;
};

// Memory for travelling blocks that calls on one stream share; it grows to the largest of them.
// Without one each queued call holds memory of its own, as many as the host is ahead of the stream.
class RingWorkspace {
 public:
  RingWorkspace();
  ~RingWorkspace();
  RingWorkspace(RingWorkspace&&) noexcept;
  RingWorkspace& operator=(RingWorkspace&&) noexcept;

  // The memory behind it; only ring_attention.cc knows what that is.
  struct Memory;
  std::shared_ptr<Memory>& memory() { return memory_; }

 private:
  std::shared_ptr<Memory> memory_;
};

// Row-major; the first layout.rows() rows are the ring's. q, out, dq, dout: (rows, heads,
// head_dim); k, v, dk, dv: (rows, kv_heads, head_dim); lse: f32 (rows, heads), natural log. Rows
// may be strided; f32 here. The workspace for travelling blocks comes from `memory` under the tag
// "ring"; it is kept until the call's work on `stream` is done. Returns at once with the work
// queued; transport failures make the stream fail.
absl::Status RingAttentionForward(const RingLayout& layout, TensorView q, TensorView k,
                                  TensorView v, float scale, TensorView out, TensorView lse,
                                  Transport& transport, Stream& stream,
                                  RingWorkspace* workspace = nullptr);

// dq, dk, dv are overwritten in the ring's rows. `out` and `lse` are the forward results.
absl::Status RingAttentionBackward(const RingLayout& layout, TensorView q, TensorView k,
                                   TensorView v, TensorView out, TensorView lse, TensorView dout,
                                   float scale, TensorView dq, TensorView dk, TensorView dv,
                                   Transport& transport, Stream& stream,
                                   RingWorkspace* workspace = nullptr);

// Bytes that the members of one ring send in all, for one layer's forward and backward: what tests
// hold the transport to. `kv_heads * head_dim` values of K and as many of V a token, 4 bytes each.
int64_t RingForwardBytes(const RingLayout& layout, int64_t kv_width);
int64_t RingBackwardBytes(const RingLayout& layout, int64_t kv_width);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_RING_ATTENTION_H_
