#include "runtime/model/attention_pattern.h"

#include <utility>

namespace longspan {

PlannedAttention::PlannedAttention(std::optional<RingLayout> ring,
                                   const std::vector<int64_t>& whole,
                                   const AttentionOptions& options, Transport& transport,
                                   RingWorkspace& workspace)
    : ring_(std::move(ring)), options_(options), transport_(transport), workspace_(workspace) {
  int64_t row = ring_.has_value() ? ring_->rows() : 0;
  for (int64_t length : whole) {
    whole_.push_back({row, length, row, length, /*causal=*/true, options.window, /*distance=*/0});
    row += length;
  }
}

absl::Status PlannedAttention::Forward(int, TensorView q, TensorView k, TensorView v, float scale,
                                       TensorView out, TensorView lse, Stream& stream) {
  if (ring_.has_value()) {
    return RingAttentionForward(*ring_, whole_, options_, q, k, v, scale, out, lse, transport_,
                                stream, &workspace_);
  }
  if (!whole_.empty()) AttentionForward(q, k, v, whole_, scale, out, lse, stream);
  return absl::OkStatus();
}

absl::Status PlannedAttention::Backward(int, TensorView q, TensorView k, TensorView v,
                                        TensorView out, TensorView lse, TensorView dout,
                                        float scale, TensorView delta, TensorView dq, TensorView dk,
                                        TensorView dv, Stream& stream) {
  if (q.dim(0) > 0) AttentionDelta(out, dout, delta, stream);
  if (ring_.has_value()) {
    return RingAttentionBackward(*ring_, whole_, options_, q, k, v, dout, lse, delta, scale, dq, dk,
                                 dv, transport_, stream, &workspace_);
  }
  if (!whole_.empty()) {
    AttentionBackward(q, k, v, dout, lse, delta, whole_, scale, dq, dk, dv, stream);
  }
  return absl::OkStatus();
}

}  // namespace longspan
