// The CUDA bodies of the operators, as the files in kernels/cpu call them: arguments are checked,
// the stream is a CUDA stream, memory is the GPU's. What an operator does and which dtypes it takes
// is said where kernels/*.h declares it; here is only what differs. A launch that fails makes the
// stream fail. Nothing waits for the GPU; memory comes from the stream's (stream_memory.h).
#ifndef LONGSPAN_KERNELS_CUDA_OPERATORS_H_
#define LONGSPAN_KERNELS_CUDA_OPERATORS_H_

#include <vector>

#include "kernels/attention.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "kernels/gemm.h"
#include "kernels/optimizer_pass.h"

namespace longspan::cuda {

// The first call for a shape asks cuBLASLt for its algorithm, on the calling thread. That decides
// whether an epilogue of that shape is part of the product or a pass of its own.
void Gemm(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b,
          float beta, TensorView c, const Epilogue& epilogue, Stream& stream);

void RmsNormForward(TensorView x, TensorView weight, float eps, TensorView y, TensorView rstd,
                    Stream& stream);
void RmsNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView rstd, TensorView dx,
                     TensorView dweight, Stream& stream);
void LayerNormForward(TensorView x, TensorView weight, TensorView bias, float eps, TensorView y,
                      TensorView mean, TensorView rstd, Stream& stream);
void LayerNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView mean,
                       TensorView rstd, TensorView dx, TensorView dweight, TensorView dbias,
                       Stream& stream);

// direction: 1, or -1 for the transposed rotation. head_dim is at most 512.
void Rope(TensorView x, TensorView positions, double base, float direction, Stream& stream);

void SwiGluForward(TensorView gate_up, TensorView y, Stream& stream);
void SwiGluBackward(TensorView dy, TensorView gate_up, TensorView dgate_up, Stream& stream);
void GeluForward(TensorView x, TensorView y, Stream& stream);
void GeluBackward(TensorView dy, TensorView x, TensorView dx, Stream& stream);

// An id outside the table stops the kernel, and the stream fails.
void EmbeddingForward(TensorView ids, TensorView table, bool accumulate, TensorView out,
                      Stream& stream);
// Rows of one id are summed in pieces of 64, and these in order.
void EmbeddingBackward(TensorView ids, TensorView dout, TensorView dtable, Stream& stream);

// A target outside the vocabulary stops the kernel, and the stream fails. With bf16 operands the
// logits are f32 all the same; their gradient is rounded to bf16 where it stands.
void LinearCrossEntropy(TensorView hidden, TensorView weight, TensorView targets, TensorView losses,
                        TensorView dhidden, TensorView dweight, TensorView workspace,
                        Stream& stream);

void Zero(TensorView x, Stream& stream);
void Copy(TensorView x, TensorView y, Stream& stream);
void Convert(TensorView x, TensorView y, Stream& stream);
void Add(TensorView x, TensorView y, Stream& stream);
void AddBias(TensorView bias, TensorView y, Stream& stream);
void BiasBackward(TensorView dy, TensorView dbias, Stream& stream);

void AccumulateGradientStatistics(TensorView gradient, TensorView statistics, Stream& stream);
void AdamWUpdate(const AdamWParameters& parameters, TensorView gradient, TensorView parameter,
                 TensorView first_moment, TensorView second_moment, TensorView adam_sum,
                 const WrittenSums& written, Stream& stream);
void SgdUpdate(const SgdParameters& parameters, TensorView gradient, TensorView parameter,
               TensorView momentum, const WrittenSums& written, Stream& stream);

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
