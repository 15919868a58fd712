// RingPass: the forward and the backward pass of ring attention on the rows of a ring, for all the
// heads that its tensors have. What RingAttentionForward and RingAttentionBackward are made of.
#ifndef LONGSPAN_PARALLEL_RING_PASS_H_
#define LONGSPAN_PARALLEL_RING_PASS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/attention.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "parallel/ring_layout.h"
#include "parallel/ring_workspace.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Queues work that has nothing to do with the ring, while the messages of `step` travel.
using BesideStep = std::function<void(int step)>;

// One ring of layout.ranks, of one member or more; layout.head_parallel does not count. Tensors are
// those of ring_attention.h with layout.rows() rows. `workspace` begins with the tensors that
// RingForwardShapes or RingBackwardShapes asks for, and must be held until the stream is past the
// pass. `beside` is called in the forward pass for every step but the last, in the backward pass
// for every step.
// `compute`: the dtype of k and v.
std::vector<WorkspaceShape> RingForwardShapes(const RingLayout& layout, DType wire, DType compute,
                                              const HeadCounts& heads);
void RingForwardPass(const RingLayout& layout, const TensorView& q, const TensorView& k,
                     const TensorView& v, float scale, const TensorView& out, const TensorView& lse,
                     WorkspaceTensors& workspace, const BesideStep& beside, Transport& transport,
                     Stream& stream);

std::vector<WorkspaceShape> RingBackwardShapes(const RingLayout& layout, DType wire, DType compute,
                                               const HeadCounts& heads);
void RingBackwardPass(const RingLayout& layout, const TensorView& q, const TensorView& k,
                      const TensorView& v, const TensorView& dout, const TensorView& lse,
                      const TensorView& delta, float scale, const TensorView& dq,
                      const TensorView& dk, const TensorView& dv, WorkspaceTensors& workspace,
                      const BesideStep& beside, Transport& transport, Stream& stream);

// Rows that this member sends in one pass.
struct RingRows {
  int64_t keys_and_values = 0;  // in a forward pass, and again in a backward pass
  int64_t gradients = 0;        // of keys and values, in a backward pass
};
RingRows RowsSent(const RingLayout& layout);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_RING_PASS_H_
