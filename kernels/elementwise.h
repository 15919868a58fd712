// Element-wise parts of the layers. f32; on a GPU what is added and what it is added to may each be
// bf16. Rows may be strided unless said.
#ifndef LONGSPAN_KERNELS_ELEMENTWISE_H_
#define LONGSPAN_KERNELS_ELEMENTWISE_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Fills with zeros. Any dtype, contiguous.
void Zero(TensorView x, Stream& stream);
// y = x, same shape (up to 3 dimensions) and dtype; rows of either side may be strided.
void Copy(TensorView x, TensorView y, Stream& stream);
// y = x, same shape (up to 3 dimensions); f32 or bf16 on either side, f32 is rounded to the nearest
// bf16, ties to even. Rows of either side may be strided.
void Convert(TensorView x, TensorView y, Stream& stream);
// y += x.
void Add(TensorView x, TensorView y, Stream& stream);
// y[r] += bias for every row. y: (rows, width); bias: (width).
void AddBias(TensorView bias, TensorView y, Stream& stream);
// dbias += column sums of dy, in an order that does not depend on the number of threads. dbias is
// f32.
void BiasBackward(TensorView dy, TensorView dbias, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_ELEMENTWISE_H_
