// Cross-entropy, fused with the output projection and cut into chunks of rows: there is never more
// than one chunk of logits.
#ifndef LONGSPAN_KERNELS_CROSS_ENTROPY_H_
#define LONGSPAN_KERNELS_CROSS_ENTROPY_H_

#include <cstdint>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Rows of logits held at a time for a vocabulary: about 16 MiB of f32, at least 64 rows.
int64_t CrossEntropyChunkRows(int64_t vocabulary);

// For every row i: loss_i = logsumexp(logits_i) - logits_i[target_i], logits = hidden * weight^T.
//   losses[i] = loss_i (f32, written)
//   dhidden = d(sum of loss_i)/d hidden (overwritten), dweight += d(sum of loss_i)/d weight; both
//   skipped when empty (default-constructed): evaluation.
// Unscaled sums: the caller's optimizer applies 1/N. hidden, dhidden: f32 (rows, width); weight,
// dweight: f32 (vocabulary, width); targets: i32 (rows), checked; workspace: f32
// (CrossEntropyChunkRows(vocabulary), vocabulary).
void LinearCrossEntropy(TensorView hidden, TensorView weight, TensorView targets, TensorView losses,
                        TensorView dhidden, TensorView dweight, TensorView workspace,
                        Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_CROSS_ENTROPY_H_
