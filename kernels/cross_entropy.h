// Cross-entropy, fused with the output projection and cut into chunks of rows: there is never more
// than one chunk of logits.
#ifndef LONGSPAN_KERNELS_CROSS_ENTROPY_H_
#define LONGSPAN_KERNELS_CROSS_ENTROPY_H_

#include <cstdint>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Rows of logits to hold at a time for a vocabulary, at least 64: about 16 MiB of f32, on a GPU 512
// MiB.
int64_t CrossEntropyChunkRows(int64_t vocabulary, DeviceKind kind = DeviceKind::kCpu);

// For every row i: loss_i = logsumexp(logits_i) - logits_i[target_i], logits = hidden * weight^T.
//   losses[i] = loss_i (f32, written)
//   dhidden = d(sum of loss_i)/d hidden (overwritten), dweight += d(sum of loss_i)/d weight; both
//   skipped when empty (default-constructed): evaluation.
// Unscaled sums: the caller's optimizer applies 1/N. hidden, dhidden: (rows, width) and weight:
// (vocabulary, width), all three f32, or on a GPU all bf16; dweight: f32 (vocabulary, width);
// targets: i32 (rows), checked; workspace: f32 (chunk, vocabulary), for chunks of so many rows:
// CrossEntropyChunkRows. Logits and losses are f32 everywhere; a bf16 call rounds the logits'
// gradient to bf16. On a GPU a vocabulary that is a multiple of 8 is faster.
void LinearCrossEntropy(TensorView hidden, TensorView weight, TensorView targets, TensorView losses,
                        TensorView dhidden, TensorView dweight, TensorView workspace,
                        Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_CROSS_ENTROPY_H_
