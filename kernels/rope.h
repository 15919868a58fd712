// Rotary position embedding (arXiv 2104.09864), in the "rotate half" layout of Hugging Face's
// Llama: dimension i of a head pairs with i + head_dim/2, at frequency base^(-2i/head_dim).
#ifndef LONGSPAN_KERNELS_ROPE_H_
#define LONGSPAN_KERNELS_ROPE_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// In place. x: f32, or on a GPU bf16 (rows, heads, head_dim), rows may be strided; positions: i32
// (rows), the position in the document.
void RopeForward(TensorView x, TensorView positions, double base, Stream& stream);
// The transposed rotation, in place on the gradient.
void RopeBackward(TensorView dx, TensorView positions, double base, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_ROPE_H_
