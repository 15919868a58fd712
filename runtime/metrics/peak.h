// The measured peak: what a large matrix product reaches on this rank's device. Shares of peak
// refer to it.
#ifndef LONGSPAN_RUNTIME_METRICS_PEAK_H_
#define LONGSPAN_RUNTIME_METRICS_PEAK_H_

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"

namespace longspan {

// FLOP/s of a product of two `size` x `size` matrices of `dtype`: the best of `rounds`, after one
// to warm up.
absl::StatusOr<double> MeasureGemmPeak(int64_t size, int rounds, DType dtype, Stream& stream);
// In the dtype that models compute in on the stream's device, and a size that keeps it busy.
absl::StatusOr<double> MeasurePeak(Stream& stream);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_METRICS_PEAK_H_
