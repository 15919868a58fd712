// The loss of rows of logits and its gradient, on a CUDA stream.
#ifndef LONGSPAN_KERNELS_CUDA_CROSS_ENTROPY_CUH_
#define LONGSPAN_KERNELS_CUDA_CROSS_ENTROPY_CUH_

#include <cuda_runtime_api.h>

#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

enum class LogitGradient {
  kNone,  // the logits stay
  kF32,   // softmax - one_hot takes their place
  // The same in bf16, packed at the front of each row's memory: row r starts where its logits did,
  // so rows lie 2 * stride bf16 elements apart.
  kBF16,
};

// losses[r] = logsumexp(logits[r]) - logits[r][targets[r]]. logits: f32 (rows, vocabulary);
// targets: i32 (rows), one outside the vocabulary makes the stream fail; losses: f32 (rows).
cudaError_t CrossEntropyRows(const TensorView& logits, const TensorView& targets,
                             const TensorView& losses, LogitGradient gradient, cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_CROSS_ENTROPY_CUH_
