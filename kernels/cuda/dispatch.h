// The choice between an operator's two bodies.
#ifndef LONGSPAN_KERNELS_CUDA_DISPATCH_H_
#define LONGSPAN_KERNELS_CUDA_DISPATCH_H_

#include "kernels/device/check.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

// LONGSPAN_RUN_ON_CUDA(stream, Operator(arguments)): where the stream is a CUDA stream, calls the
// CUDA body and returns from the operator.
#ifdef LONGSPAN_HAVE_CUDA
#include "kernels/cuda/operators.h"
#define LONGSPAN_RUN_ON_CUDA(stream, call) \
  if ((stream).kind() == DeviceKind::kCuda) return cuda::call
#else
#define LONGSPAN_RUN_ON_CUDA(stream, call) static_cast<void>(stream)
#endif

namespace longspan {

// The type of an operand that is f32 on the CPU, f32 or bf16 on a GPU.
inline DType ComputeType(const TensorView& x, const Stream& stream) {
  LONGSPAN_CHECK(
      x.dtype() == DType::kF32 || (x.dtype() == DType::kBF16 && stream.kind() == DeviceKind::kCuda),
      "expects f32, or on a GPU bf16");
  return x.dtype();
}

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_CUDA_DISPATCH_H_
