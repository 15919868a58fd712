// The CUDA bodies of the operators, as the files in kernels/ call them: arguments are checked, the
// stream is a CUDA stream, memory is the GPU's. What an operator does is said where kernels/*.h
// declares it; here is only what differs. A launch that fails makes the stream fail.
#ifndef LONGSPAN_KERNELS_CUDA_OPERATORS_H_
#define LONGSPAN_KERNELS_CUDA_OPERATORS_H_

#include <vector>

#include "kernels/attention.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

// q, k, v and dout are bf16, everything else is f32. head_dim is a multiple of 8. The first call
// for a bucket of shapes plans on the calling thread.
void AttentionForward(TensorView q, TensorView k, TensorView v,
                      const std::vector<AttentionSpan>& spans, float scale, TensorView out,
                      TensorView lse, Stream& stream);
// Without Device::deterministic() the sums of dq have no fixed order.
void AttentionBackward(TensorView q, TensorView k, TensorView v, TensorView dout, TensorView lse,
                       TensorView delta, const std::vector<AttentionSpan>& spans, float scale,
                       TensorView dq, TensorView dk, TensorView dv, Stream& stream);
void MergeAttention(TensorView block_out, TensorView block_lse, TensorView out, TensorView lse,
                    Stream& stream);
// dout: f32 or bf16.
void AttentionDelta(TensorView out, TensorView dout, TensorView delta, Stream& stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_OPERATORS_H_
