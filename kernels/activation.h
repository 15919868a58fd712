// SwiGLU (arXiv 2002.05202) and GELU in its tanh form (arXiv 1606.08415, as GPT-2 uses it). All
// f32, or on a GPU all bf16, computed in f32.
#ifndef LONGSPAN_KERNELS_ACTIVATION_H_
#define LONGSPAN_KERNELS_ACTIVATION_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// y = silu(gate) * up. gate_up: (rows, 2 * ffn), gate first; y: (rows, ffn).
void SwiGluForward(TensorView gate_up, TensorView y, Stream& stream);
// dgate_up is overwritten; it may be gate_up itself.
void SwiGluBackward(TensorView dy, TensorView gate_up, TensorView dgate_up, Stream& stream);

// y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), (rows, width). y may be x.
void GeluForward(TensorView x, TensorView y, Stream& stream);
// dx is overwritten; it may be dy or x.
void GeluBackward(TensorView dy, TensorView x, TensorView dx, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_ACTIVATION_H_
