// AttentionPattern: who attends to whom in one micro-batch. The layers of a model do not know
// whether a sequence is whole, shared with other ranks, or continues a cache.
#ifndef LONGSPAN_RUNTIME_MODEL_ATTENTION_PATTERN_H_
#define LONGSPAN_RUNTIME_MODEL_ATTENTION_PATTERN_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "parallel/ring_attention.h"
#include "parallel/transport/transport.h"

namespace longspan {

class AttentionPattern {
 public:
  virtual ~AttentionPattern() = default;
  // Shapes and dtypes as in kernels/attention.h, with as many key rows as query rows: those of the
  // micro-batch. Every row of out and lse is written.
  virtual absl::Status Forward(int layer, TensorView q, TensorView k, TensorView v, float scale,
                               TensorView out, TensorView lse, Stream& stream) = 0;
  // dq, dk, dv hold zeros on entry. delta: f32 (rows, heads), scratch.
  virtual absl::Status Backward(int layer, TensorView q, TensorView k, TensorView v, TensorView out,
                                TensorView lse, TensorView dout, float scale, TensorView delta,
                                TensorView dq, TensorView dk, TensorView dv, Stream& stream) = 0;
};

// A micro-batch of a step plan: the ring's slices in the first rows, then whole sequences.
class PlannedAttention : public AttentionPattern {
 public:
  // `whole`: lengths of the whole sequences, in row order after the ring's rows. `transport` must
  // outlive this object.
  PlannedAttention(std::optional<RingLayout> ring, const std::vector<int64_t>& whole,
                   const AttentionOptions& options, Transport& transport, RingWorkspace& workspace);

  absl::Status Forward(int layer, TensorView q, TensorView k, TensorView v, float scale,
                       TensorView out, TensorView lse, Stream& stream) override;
  absl::Status Backward(int layer, TensorView q, TensorView k, TensorView v, TensorView out,
                        TensorView lse, TensorView dout, float scale, TensorView delta,
                        TensorView dq, TensorView dk, TensorView dv, Stream& stream) override;

 private:
  std::optional<RingLayout> ring_;
  std::vector<AttentionSpan> whole_;
  AttentionOptions options_;
  Transport& transport_;
  RingWorkspace& workspace_;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_ATTENTION_PATTERN_H_
