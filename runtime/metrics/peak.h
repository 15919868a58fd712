// The measured peak: what a large matrix product reaches on this rank's device. Shares of peak
// refer to it.
#ifndef LONGSPAN_RUNTIME_METRICS_PEAK_H_
#define LONGSPAN_RUNTIME_METRICS_PEAK_H_

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"

namespace longspan {

// FLOP/s of an FP32 product of two `size` x `size` matrices: the best of `rounds`, after one to
// warm up.
absl::StatusOr<double> MeasureGemmPeak(int64_t size, int rounds, Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_METRICS_PEAK_H_
