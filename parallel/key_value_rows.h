// Keys and values as they travel: side by side in each row, so that rows of both are one message.
// Their gradients likewise.
#ifndef LONGSPAN_PARALLEL_KEY_VALUE_ROWS_H_
#define LONGSPAN_PARALLEL_KEY_VALUE_ROWS_H_

#include <cstdint>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// The first `rows` rows of `block`, (rows, 2 * kv_heads * head_dim), as keys and as values: (rows,
// kv_heads, head_dim), strided. `k` tells kv_heads and head_dim.
TensorView KeysOf(const TensorView& block, int64_t rows, const TensorView& k);
TensorView ValuesOf(const TensorView& block, int64_t rows, const TensorView& k);

// Rows of k and v to the first rows of `block`, of its dtype.
void PackKeysAndValues(const TensorView& k, const TensorView& v, const TensorView& block,
                       Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_KEY_VALUE_ROWS_H_
