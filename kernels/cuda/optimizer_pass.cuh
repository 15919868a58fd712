// kernels/optimizer_pass.h on a CUDA stream: f32, contiguous, device memory.
#ifndef LONGSPAN_KERNELS_CUDA_OPTIMIZER_PASS_CUH_
#define LONGSPAN_KERNELS_CUDA_OPTIMIZER_PASS_CUH_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace longspan::cuda {

// Doubles of `partials` for a pass over `count` elements.
int64_t PassPartials(int64_t count);

// statistics (3) += sum |g|, sum g^2, count of NaN and infinities; one order of sums on every GPU.
cudaError_t AddGradientStatistics(const float* gradient, int64_t count, double* partials,
                                  double* statistics, cudaStream_t stream);

// Where content sums (kernels/device/content_sum.h) of the vectors that an update writes are added
// to: none where nobody wants them.
struct ContentSums {
  unsigned long long* sums;
  int64_t position;  // of the first element
};

// What is the same for all elements, worked out in f64 and rounded once.
struct AdamWFactors {
  float gradient_scale;
  float keep;  // what weight decay leaves of a parameter
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float step_size;   // rate / (1 - beta1^step)
  float root_scale;  // 1 / sqrt(1 - beta2^step)
  float eps;
};
// One pass over memory: the sums are of what is in registers. `adam_sum`: none, or one double that
// the sum is added to; `partials` likewise.
cudaError_t UpdateByAdamW(const AdamWFactors& factors, const float* gradient, int64_t count,
                          float* parameter, float* first, float* second, double* partials,
                          double* adam_sum, const ContentSums& written, cudaStream_t stream);

struct SgdFactors {
  float rate, keep, decay, gradient_scale;
};
cudaError_t UpdateBySgd(const SgdFactors& factors, const float* gradient, int64_t count,
                        float* parameter, float* momentum, const ContentSums& written,
                        cudaStream_t stream);

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_OPTIMIZER_PASS_CUH_
