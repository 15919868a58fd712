#include "kernels/elementwise.h"

#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cuda/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

#if HWY_ONCE
namespace longspan {
namespace {

// Two tensors of one shape as runs of elements that are contiguous in both: run r = i * inner + j
// starts at element i * outer_stride + j * inner_stride of its tensor.
struct Runs {
  int64_t count = 0;
  int64_t length = 0;
  int64_t inner = 1;
  int64_t x_outer_stride = 0, x_inner_stride = 0;
  int64_t y_outer_stride = 0, y_inner_stride = 0;

  int64_t XOffset(int64_t run) const {
    return run / inner * x_outer_stride + run % inner * x_inner_stride;
  }
  int64_t YOffset(int64_t run) const {
    return run / inner * y_outer_stride + run % inner * y_inner_stride;
  }
};

Runs RunsOf(const TensorView& x, const TensorView& y) {
  LONGSPAN_CHECK(x.rank() == y.rank() && x.rank() >= 1 && x.rank() <= 3,
                 "expects two tensors of one shape with 1 to 3 dimensions");
  for (int axis = 0; axis < x.rank(); ++axis)
    LONGSPAN_CHECK(x.dim(axis) == y.dim(axis), "shapes differ");
  Runs runs;
  if (x.empty()) return runs;
  if (x.contiguous() && y.contiguous()) {
    // Blocks of a task each, and a shorter last one that the caller clips.
    runs.length = kTaskElements;
    runs.count = (x.elements() + kTaskElements - 1) / kTaskElements;
    runs.x_outer_stride = runs.y_outer_stride = kTaskElements;
    return runs;
  }
  const int last = x.rank() - 1;
  runs.length = x.dim(last);
  runs.count = x.elements() / runs.length;
  runs.inner = last == 2 ? x.dim(1) : 1;
  runs.x_outer_stride = x.stride(0);
  runs.y_outer_stride = y.stride(0);
  if (last == 2) {
    runs.x_inner_stride = x.stride(1);
    runs.y_inner_stride = y.stride(1);
  }
  return runs;
}

// Calls body(x offset, y offset, elements) for every run, in parallel.
template <typename Body>
void ForRuns(ThreadPool& threads, const Runs& runs, int64_t elements, const Body& body) {
  ForRowBlocks(threads, runs.count, runs.length, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      body(runs.XOffset(r), runs.YOffset(r), std::min(runs.length, elements - r * runs.length));
  });
}

// The compiler turns both loops into SIMD code; there is nothing to choose at run time.
void ToBf16(const float* x, int64_t count, uint16_t* y) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    y[i] = static_cast<uint16_t>((nan ? bits | 0x400000u : rounded) >> 16);
  }
}

void FromBf16(const uint16_t* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = std::bit_cast<float>(uint32_t{x[i]} << 16);
}

}  // namespace

HWY_EXPORT(AddRow);

void Zero(TensorView x, Stream& stream) {
  LONGSPAN_CHECK(x.contiguous(), "Zero needs a contiguous tensor");
  LONGSPAN_RUN_ON_CUDA(stream, Zero(x, stream));
  stream.Launch("zero", [=, threads = &stream.device().threads()] {
    char* const bytes = static_cast<char*>(x.raw());
    ForRowBlocks(*threads, x.bytes(), 1,
                 [&](int64_t begin, int64_t end) { std::memset(bytes + begin, 0, end - begin); });
  });
}

void Copy(TensorView x, TensorView y, Stream& stream) {
  LONGSPAN_CHECK(x.dtype() == y.dtype(), "dtypes differ");
  const Runs runs = RunsOf(x, y);
  LONGSPAN_RUN_ON_CUDA(stream, Copy(x, y, stream));
  stream.Launch("copy", [=, threads = &stream.device().threads()] {
    const int64_t size = SizeOf(x.dtype());
    const char* const from = static_cast<const char*>(x.raw());
    char* const to = static_cast<char*>(y.raw());
    ForRuns(*threads, runs, x.elements(), [&](int64_t x_at, int64_t y_at, int64_t count) {
      std::memcpy(to + y_at * size, from + x_at * size, count * size);
    });
  });
}

void Convert(TensorView x, TensorView y, Stream& stream) {
  if (x.dtype() == y.dtype()) return Copy(x, y, stream);
  const bool narrows = x.dtype() == DType::kF32 && y.dtype() == DType::kBF16;
  LONGSPAN_CHECK(narrows || (x.dtype() == DType::kBF16 && y.dtype() == DType::kF32),
                 "Convert knows f32 and bf16");
  const Runs runs = RunsOf(x, y);
  LONGSPAN_RUN_ON_CUDA(stream, Convert(x, y, stream));
  stream.Launch("convert", [=, threads = &stream.device().threads()] {
    ForRuns(*threads, runs, x.elements(), [&](int64_t x_at, int64_t y_at, int64_t count) {
      if (narrows) {
        ToBf16(x.data<float>() + x_at, count, static_cast<uint16_t*>(y.raw()) + y_at);
      } else {
        FromBf16(static_cast<const uint16_t*>(x.raw()) + x_at, count, y.data<float>() + y_at);
      }
    });
  });
}

void Add(TensorView x, TensorView y, Stream& stream) {
  ComputeType(x, stream);
  ComputeType(y, stream);
  const Runs runs = RunsOf(x, y);
  LONGSPAN_RUN_ON_CUDA(stream, Add(x, y, stream));
  stream.Launch("add", [=, threads = &stream.device().threads()] {
    const float* const from = x.data<float>();
    float* const to = y.data<float>();
    ForRuns(*threads, runs, x.elements(), [&](int64_t x_at, int64_t y_at, int64_t count) {
      HWY_DYNAMIC_DISPATCH(AddRow)(from + x_at, count, to + y_at);
    });
  });
}

void AddBias(TensorView bias, TensorView y, Stream& stream) {
  LONGSPAN_CHECK(y.rank() == 2, "y is (rows, width)");
  const int64_t rows = y.dim(0), width = y.dim(1);
  CheckMatrix(y, rows, width, ComputeType(y, stream));
  CheckVector(bias, width, ComputeType(bias, stream));
  LONGSPAN_RUN_ON_CUDA(stream, AddBias(bias, y, stream));
  stream.Launch("add_bias", [=, threads = &stream.device().threads()] {
    ForRowBlocks(*threads, rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(AddRow)
      (bias.data<float>(), width, y.data<float>() + r * y.stride(0));
    });
  });
}

void BiasBackward(TensorView dy, TensorView dbias, Stream& stream) {
  LONGSPAN_CHECK(dy.rank() == 2, "dy is (rows, width)");
  const int64_t rows = dy.dim(0), width = dy.dim(1);
  CheckMatrix(dy, rows, width, ComputeType(dy, stream));
  CheckVector(dbias, width);
  LONGSPAN_RUN_ON_CUDA(stream, BiasBackward(dy, dbias, stream));
  stream.Launch("bias_backward", [=, threads = &stream.device().threads()] {
    const ColumnSumChunks chunks(rows);
    std::vector<float> partials(chunks.count * width, 0.0f);
    threads->ParallelFor(chunks.count, [&](int64_t chunk) {
      const int64_t end = std::min(rows, (chunk + 1) * chunks.rows_each);
      for (int64_t r = chunk * chunks.rows_each; r < end; ++r) HWY_DYNAMIC_DISPATCH(AddRow)
      (dy.data<float>() + r * dy.stride(0), width, partials.data() + chunk * width);
    });
    AddPartialSums(*threads, partials.data(), chunks.count, width, dbias.data<float>());
  });
}

}  // namespace longspan
#endif  // HWY_ONCE
