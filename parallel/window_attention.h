// Ring attention with a sliding window: what a member's queries see before its own parts, and does
// not hold itself, comes straight from the members that hold it, in one exchange; members outside
// of a window do not communicate. The keys and values that arrive are kept until the call ends: at
// most 2 * (window - 1) tokens of each sequence.
#ifndef LONGSPAN_PARALLEL_WINDOW_ATTENTION_H_
#define LONGSPAN_PARALLEL_WINDOW_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "parallel/ring_attention.h"
#include "parallel/ring_layout.h"
#include "parallel/transport/transport.h"

namespace longspan {

// As RingAttentionForward and RingAttentionBackward, with options.window > 0; `whole` has it too.
absl::Status WindowAttentionForward(const RingLayout& layout,
                                    const std::vector<AttentionSpan>& whole,
                                    const AttentionOptions& options, TensorView q, TensorView k,
                                    TensorView v, float scale, TensorView out, TensorView lse,
                                    Transport& transport, Stream& stream, RingWorkspace* workspace);
absl::Status WindowAttentionBackward(const RingLayout& layout,
                                     const std::vector<AttentionSpan>& whole,
                                     const AttentionOptions& options, TensorView q, TensorView k,
                                     TensorView v, TensorView dout, TensorView lse,
                                     TensorView delta, float scale, TensorView dq, TensorView dk,
                                     TensorView dv, Transport& transport, Stream& stream,
                                     RingWorkspace* workspace);

// Bytes that this member sends, as RingForwardBytes and RingBackwardBytes.
int64_t WindowForwardBytes(const RingLayout& layout, const AttentionOptions& options,
                           int64_t kv_width);
int64_t WindowBackwardBytes(const RingLayout& layout, const AttentionOptions& options,
                            int64_t kv_width);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_WINDOW_ATTENTION_H_
