// Attention over a group by gathering all keys and values first: what a ring is compared with.
#ifndef LONGSPAN_TESTS_BENCH_GATHERED_ATTENTION_H_
#define LONGSPAN_TESTS_BENCH_GATHERED_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "kernels/device/stream.h"
#include "parallel/ring_attention.h"
#include "parallel/transport/transport.h"

namespace longspan {

// As RingAttentionForward and RingAttentionBackward, f32, without a window: every member receives
// the keys and values of all others in one exchange, computes, and sends the gradients home in
// another. Whole sequences are computed while keys and values travel.
absl::Status GatheredAttentionForward(const RingLayout& layout,
                                      const std::vector<AttentionSpan>& whole, TensorView q,
                                      TensorView k, TensorView v, float scale, TensorView out,
                                      TensorView lse, Transport& transport, Stream& stream,
                                      RingWorkspace& workspace);
absl::Status GatheredAttentionBackward(const RingLayout& layout,
                                       const std::vector<AttentionSpan>& whole, TensorView q,
                                       TensorView k, TensorView v, TensorView dout, TensorView lse,
                                       TensorView delta, float scale, TensorView dq, TensorView dk,
                                       TensorView dv, Transport& transport, Stream& stream,
                                       RingWorkspace& workspace);

// Bytes that this member sends for both.
int64_t GatheredBytes(const RingLayout& layout, int64_t kv_width);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_BENCH_GATHERED_ATTENTION_H_
