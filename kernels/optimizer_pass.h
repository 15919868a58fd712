// The two passes over a shard that an update needs: statistics of the gradient, then the update
// itself, of AdamW or of SGD.
#ifndef LONGSPAN_KERNELS_OPTIMIZER_PASS_H_
#define LONGSPAN_KERNELS_OPTIMIZER_PASS_H_

#include <cstdint>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Sums over the finite elements of a gradient vector, times nothing: the caller scales. f64 so that
// shards add up.
struct GradientStatistics {
  double l1 = 0;          // sum |g|
  double squared_l2 = 0;  // sum g^2
  double non_finite = 0;  // count of NaN and infinities
};

// statistics: f64 (3), accumulated in the order of GradientStatistics. gradient: f32 (n),
// contiguous. The order of sums does not depend on the number of threads.
void AccumulateGradientStatistics(TensorView gradient, TensorView statistics, Stream& stream);

// PyTorch's AdamW (arXiv 1711.05101): p *= 1 - rate*decay; m = b1 m + (1-b1) g; v = b2 v + (1-b2)
// g^2; p -= rate/(1-b1^step) * m / (sqrt(v)/sqrt(1-b2^step) + eps), with g = gradient_scale *
// gradient.
struct AdamWParameters {
  double rate = 0;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0;
  double gradient_scale = 1;  // clip factor / N
  int64_t step = 1;           // 1 for the first update
};
// Where an update leaves the content sums (content_sum.h) of what it wrote: so that whoever copies
// the state out later can tell that it is what was written.
struct WrittenSums {
  TensorView sums;       // none, or u64 (vectors written), each added to
  int64_t position = 0;  // of the first element, in every one of the vectors
};

// All f32 (n), contiguous. adam_sum: none, or f64 (1), to which sum g^2 / (sqrt(v)/sqrt(1-b2^step)
// + eps) with the new v is added: the measure of a gradient in Adam's geometry. The order of its
// sum does not depend on the number of threads. written: of parameter, first and second moment.
void AdamWUpdate(const AdamWParameters& parameters, TensorView gradient, TensorView parameter,
                 TensorView first_moment, TensorView second_moment, Stream& stream,
                 TensorView adam_sum = TensorView(), const WrittenSums& written = {});

// PyTorch's SGD with momentum, dampening 0: d = g + decay * p; b = momentum * b + d; p -= rate * b,
// with g = gradient_scale * gradient.
struct SgdParameters {
  double rate = 0;
  double momentum = 0.9;
  double weight_decay = 0;
  double gradient_scale = 1;  // clip factor / N
};
// All f32 (n), contiguous; momentum starts as zeros. written: of parameter and momentum.
void SgdUpdate(const SgdParameters& parameters, TensorView gradient, TensorView parameter,
               TensorView momentum, Stream& stream, const WrittenSums& written = {});

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_OPTIMIZER_PASS_H_
