#include "runtime/metrics/peak.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/gemm.h"
#include "runtime/model/weights.h"

namespace longspan {

absl::StatusOr<double> MeasureGemmPeak(int64_t size, int rounds, DType dtype, Stream& stream) {
  const int64_t bytes = size * size * SizeOf(dtype);
  absl::StatusOr<Buffer> buffer = Buffer::AllocateZeroed(stream.device().memory(), 3 * bytes,
                                                         "peak measurement", Placement::kDevice);
  if (!buffer.ok()) return buffer.status();
  const auto matrix = [&](int64_t index) {
    return buffer->Tensor(dtype, {size, size}, index * bytes);
  };
  double best = 0;
  for (int round = 0; round <= rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    Gemm(Transpose::kNo, Transpose::kNo, 1, matrix(0), matrix(1), 0, matrix(2), stream);
    if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (round > 0) best = std::max(best, 2.0 * static_cast<double>(size * size * size) / seconds);
  }
  return best;
}

absl::StatusOr<double> MeasurePeak(Stream& stream) {
  constexpr int kRounds = 5;
  const DType dtype = ComputeTypeOf(stream.device());
  if (stream.kind() == DeviceKind::kCpu)
    return MeasureGemmPeak(/*size=*/768, kRounds, dtype, stream);
  // A GPU is busy with products that take it a while.
  int64_t size = 256;
  absl::StatusOr<double> peak = MeasureGemmPeak(size, kRounds, dtype, stream);
  constexpr int64_t kLargest = 8192;
  constexpr double kWhile = 2e-3;
  while (peak.ok() && size < kLargest &&
         2.0 * static_cast<double>(size * size * size) / *peak < kWhile) {
    size *= 2;
    const absl::StatusOr<double> larger = MeasureGemmPeak(size, kRounds, dtype, stream);
    if (!larger.ok()) return larger;
    peak = std::max(*peak, *larger);
  }
  return peak;
}

}  // namespace longspan
