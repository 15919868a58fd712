#include "kernels/cross_entropy.h"

#include <cmath>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/gemm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cross_entropy.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {
namespace {

float LargestOf(const float* x, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float largest = x[0];
  int64_t i = 0;
  if (count >= lanes) {
    auto max = hn::LoadU(d, x);
    for (i = lanes; i + lanes <= count; i += lanes) max = hn::Max(max, hn::LoadU(d, x + i));
    largest = hn::GetLane(hn::MaxOfLanes(d, max));
  }
  for (; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// Returns the loss of one row. With `gradient`, the logits become softmax - one_hot(target).
float CrossEntropyRow(float* logits, int64_t vocabulary, int64_t target, bool gradient) {
  const float largest = LargestOf(logits, vocabulary);
  const float target_logit = logits[target];
  const float sum = SumLanes(vocabulary, [&](auto d, int64_t i) HWY_ATTR {
    const auto logit = hn::LoadU(d, logits + i);
    const auto e = hn::Exp(d, hn::Sub(logit, hn::Set(d, largest)));
    if (gradient) hn::StoreU(e, d, logits + i);
    // Highway's Exp turns NaN into 0. Zero times the logit is NaN for NaN and infinities: they must
    // reach the loss.
    return hn::MulAdd(logit, hn::Zero(d), e);
  });
  if (gradient) {
    const float scale = 1.0f / sum;
    ForLanes(vocabulary, [&](auto d, int64_t i) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, logits + i), hn::Set(d, scale)), d, logits + i);
    });
    logits[target] -= 1.0f;
  }
  // The difference first: for large logits it is what carries the digits.
  return (largest - target_logit) + std::log(sum);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan {

HWY_EXPORT(CrossEntropyRow);

namespace {

// A chunk of logits stays in the CPU's last cache; a GPU's matrix products want many rows.
constexpr int64_t kChunkBytes = int64_t{16} << 20;
constexpr int64_t kGpuChunkBytes = int64_t{512} << 20;
constexpr int64_t kLeastChunkRows = 64;

// logits: (rows, vocabulary), overwritten with the gradient where asked for. targets, losses:
// (rows).
void CrossEntropy(TensorView logits, TensorView targets, TensorView losses, bool gradient,
                  Stream& stream) {
  stream.Launch("cross_entropy", [=, threads = &stream.device().threads()] {
    const int64_t rows = logits.dim(0), vocabulary = logits.dim(1);
    ForRowBlocks(*threads, rows, vocabulary, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int32_t target = targets.data<int32_t>()[r];
        LONGSPAN_CHECK(target >= 0 && target < vocabulary, "target id outside the vocabulary");
        losses.data<float>()[r] = HWY_DYNAMIC_DISPATCH(CrossEntropyRow)(
            logits.data<float>() + r * logits.stride(0), vocabulary, target, gradient);
      }
    });
  });
}

}  // namespace

int64_t CrossEntropyChunkRows(int64_t vocabulary, DeviceKind kind) {
  LONGSPAN_CHECK(vocabulary > 0, "the vocabulary is empty");
  const int64_t row_bytes = vocabulary * static_cast<int64_t>(sizeof(float));
  if (kind == DeviceKind::kCuda)
    return std::max(kLeastChunkRows,
                    kGpuChunkBytes / row_bytes / kLeastChunkRows * kLeastChunkRows);
  return std::max(kLeastChunkRows, kChunkBytes / row_bytes);
}

void LinearCrossEntropy(TensorView hidden, TensorView weight, TensorView targets, TensorView losses,
                        TensorView dhidden, TensorView dweight, TensorView workspace,
                        Stream& stream) {
  LONGSPAN_CHECK(hidden.rank() == 2 && weight.rank() == 2,
                 "hidden is (rows, width), weight (vocabulary, width)");
  const int64_t rows = hidden.dim(0), width = hidden.dim(1), vocabulary = weight.dim(0);
  const bool gradient = dhidden.rank() > 0;
  const DType dtype = ComputeType(hidden, stream);
  CheckMatrix(hidden, rows, width, dtype);
  CheckMatrix(weight, vocabulary, width, dtype);
  CheckVector(targets, rows, DType::kI32);
  CheckVector(losses, rows);
  LONGSPAN_CHECK(gradient == (dweight.rank() > 0),
                 "dhidden and dweight are wanted both or neither");
  if (gradient) {
    CheckMatrix(dhidden, rows, width, dtype);
    CheckMatrix(dweight, vocabulary, width);
  }
  LONGSPAN_CHECK(workspace.rank() == 2 && workspace.dtype() == DType::kF32 &&
                     (workspace.dim(0) > 0 || rows == 0) && workspace.dim(1) == vocabulary,
                 "the workspace is f32 (rows of a chunk, vocabulary)");
  LONGSPAN_RUN_ON_CUDA(stream, LinearCrossEntropy(hidden, weight, targets, losses, dhidden, dweight,
                                                  workspace, stream));
  const int64_t chunk = workspace.dim(0);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const TensorView x = hidden.Slice(0, begin, end);
    const TensorView logits = workspace.Slice(0, 0, end - begin);
    Gemm(Transpose::kNo, Transpose::kYes, 1.0f, x, weight, 0.0f, logits, stream);
    CrossEntropy(logits, targets.Slice(0, begin, end), losses.Slice(0, begin, end), gradient,
                 stream);
    if (!gradient) continue;
    Gemm(Transpose::kNo, Transpose::kNo, 1.0f, logits, weight, 0.0f, dhidden.Slice(0, begin, end),
         stream);
    Gemm(Transpose::kYes, Transpose::kNo, 1.0f, logits, x, 1.0f, dweight, stream);
  }
}

}  // namespace longspan
#endif  // HWY_ONCE
