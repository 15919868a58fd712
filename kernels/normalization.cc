// Checks the arguments and hands the work to the body of the stream's device.
#include "kernels/normalization.h"

#include "kernels/cpu/normalization.h"
#include "kernels/cpu/row_blocks.h"
#ifdef LONGSPAN_HAVE_CUDA
#include "kernels/cuda/normalization.cuh"
#endif

namespace longspan {
namespace {

#ifdef LONGSPAN_HAVE_CUDA
cuda::RowsView Rows(const TensorView& x) { return {x.data<float>(), x.stride(0)}; }

void CheckCuda(cudaError_t error) {
  LONGSPAN_CHECK(error == cudaSuccess, cudaGetErrorString(error));
}
#endif

}  // namespace

void RmsNormForward(TensorView x, TensorView weight, float eps, TensorView y, TensorView rstd,
                    Stream& stream) {
  LONGSPAN_CHECK(x.rank() == 2, "x is (rows, width)");
  const int64_t rows = x.dim(0), width = x.dim(1);
  CheckMatrix(x, rows, width);
  CheckMatrix(y, rows, width);
  CheckVector(weight, width);
  CheckVector(rstd, rows);
#ifdef LONGSPAN_HAVE_CUDA
  if (stream.kind() == DeviceKind::kCuda) {
    CheckCuda(cuda::RmsNormForward(Rows(x), weight.data<float>(), rows, width, eps, Rows(y),
                                   rstd.data<float>(), static_cast<cudaStream_t>(stream.native())));
    return;
  }
#endif
  stream.Launch("rms_norm_forward", [=, threads = &stream.device().threads()] {
    cpu::RmsNormForward(x, weight, eps, y, rstd, *threads);
  });
}

void RmsNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView rstd, TensorView dx,
                     TensorView dweight, Stream& stream) {
  LONGSPAN_CHECK(x.rank() == 2, "x is (rows, width)");
  const int64_t rows = x.dim(0), width = x.dim(1);
  CheckMatrix(dy, rows, width);
  CheckMatrix(x, rows, width);
  CheckMatrix(dx, rows, width);
  CheckVector(weight, width);
  CheckVector(rstd, rows);
  CheckVector(dweight, width);
#ifdef LONGSPAN_HAVE_CUDA
  if (stream.kind() == DeviceKind::kCuda) {
    CheckCuda(cuda::RmsNormBackward(Rows(dy), Rows(x), weight.data<float>(), rstd.data<float>(),
                                    rows, width, Rows(dx), dweight.data<float>(),
                                    static_cast<cudaStream_t>(stream.native())));
    return;
  }
#endif
  stream.Launch("rms_norm_backward", [=, threads = &stream.device().threads()] {
    cpu::RmsNormBackward(dy, x, weight, rstd, dx, dweight, *threads);
  });
}

void LayerNormForward(TensorView x, TensorView weight, TensorView bias, float eps, TensorView y,
                      TensorView mean, TensorView rstd, Stream& stream) {
  LONGSPAN_CHECK(x.rank() == 2, "x is (rows, width)");
  const int64_t rows = x.dim(0), width = x.dim(1);
  CheckMatrix(x, rows, width);
  CheckMatrix(y, rows, width);
  CheckVector(weight, width);
  CheckVector(bias, width);
  CheckVector(mean, rows);
  CheckVector(rstd, rows);
  stream.Launch("layer_norm_forward", [=, threads = &stream.device().threads()] {
    cpu::LayerNormForward(x, weight, bias, eps, y, mean, rstd, *threads);
  });
}

void LayerNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView mean,
                       TensorView rstd, TensorView dx, TensorView dweight, TensorView dbias,
                       Stream& stream) {
  LONGSPAN_CHECK(x.rank() == 2, "x is (rows, width)");
  const int64_t rows = x.dim(0), width = x.dim(1);
  CheckMatrix(dy, rows, width);
  CheckMatrix(x, rows, width);
  CheckMatrix(dx, rows, width);
  CheckVector(weight, width);
  CheckVector(mean, rows);
  CheckVector(rstd, rows);
  CheckVector(dweight, width);
  CheckVector(dbias, width);
  stream.Launch("layer_norm_backward", [=, threads = &stream.device().threads()] {
    cpu::LayerNormBackward(dy, x, weight, mean, rstd, dx, dweight, dbias, *threads);
  });
}

}  // namespace longspan
