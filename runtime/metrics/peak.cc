#include "runtime/metrics/peak.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/gemm.h"

namespace longspan {

absl::StatusOr<double> MeasureGemmPeak(int64_t size, int rounds, Stream& stream) {
  absl::StatusOr<Buffer> buffer =
      Buffer::AllocateZeroed(stream.device().memory(), 3 * size * size * SizeOf(DType::kF32),
                             "peak measurement", Placement::kDevice);
  if (!buffer.ok()) return buffer.status();
  const auto matrix = [&](int64_t index) {
    return buffer->Tensor(DType::kF32, {size, size}, index * size * size * SizeOf(DType::kF32));
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

}  // namespace longspan
