// Embedding look-up and its gradient.
#ifndef LONGSPAN_KERNELS_EMBEDDING_H_
#define LONGSPAN_KERNELS_EMBEDDING_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// out[i] = table[ids[i]], or += with `accumulate`. ids: i32 (rows), each in [0, table rows),
// checked; table: (entries, width) and out: (rows, width), f32, on a GPU each f32 or bf16.
void EmbeddingForward(TensorView ids, TensorView table, bool accumulate, TensorView out,
                      Stream& stream);
// dtable[ids[i]] += dout[i], summed in a fixed order: on the CPU that of the rows, whatever the
// number of threads. dtable: f32; dout: f32, or on a GPU bf16.
void EmbeddingBackward(TensorView ids, TensorView dout, TensorView dtable, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_EMBEDDING_H_
