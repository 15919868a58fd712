// Embedding look-up and its gradient.
#ifndef LONGSPAN_KERNELS_EMBEDDING_H_
#define LONGSPAN_KERNELS_EMBEDDING_H_

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// out[i] = table[ids[i]], or += with `accumulate`. ids: i32 (rows), each in [0, table rows),
// checked; table: f32 (entries, width); out: f32 (rows, width).
void EmbeddingForward(TensorView ids, TensorView table, bool accumulate, TensorView out,
                      Stream& stream);
// dtable[ids[i]] += dout[i], summed in row order whatever the number of threads.
void EmbeddingBackward(TensorView ids, TensorView dout, TensorView dtable, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_EMBEDDING_H_
