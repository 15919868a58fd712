#include "kernels/cuda/operators.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/call.h"
#include "kernels/cuda/cross_entropy.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/embedding.cuh"
#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/normalization.cuh"
#include "kernels/cuda/optimizer_pass.cuh"
#include "kernels/cuda/rope.cuh"

namespace longspan::cuda {
namespace {

// The alignment that a library may count on: at most 256 bytes.
int AlignmentOf(const void* memory) {
  const auto at = reinterpret_cast<uintptr_t>(memory);
  return at == 0 ? 256 : static_cast<int>(std::min<uintptr_t>(256, at & (~at + 1)));
}

// Of a matrix of one row or none too.
int64_t RowStride(const TensorView& x) { return std::max({int64_t{1}, x.dim(1), x.stride(0)}); }

ContentSums SumsOf(const WrittenSums& written) {
  return {static_cast<unsigned long long*>(written.sums.raw()), written.position};
}

ProductOperand OperandOf(const TensorView& x) {
  return {x.dtype(), RowStride(x), AlignmentOf(x.raw())};
}

// A product without an inner dimension, as a rank without tokens has for its weights' gradients.
void ScaleOnly(float beta, const TensorView& c, Stream& stream) {
  LONGSPAN_CHECK(beta == 0 || beta == 1,
                 "on a GPU a product without inner dimension keeps c or not");
  if (beta == 1) return;
  const size_t size = static_cast<size_t>(SizeOf(c.dtype()));
  Report(cudaMemset2DAsync(c.raw(), static_cast<size_t>(RowStride(c)) * size, 0,
                           static_cast<size_t>(c.dim(1)) * size, static_cast<size_t>(c.dim(0)),
                           Native(stream)),
         "gemm", stream);
}

// Queues the product with its epilogue, where that is one call of the library. Otherwise nothing is
// queued and the answer is false.
bool QueueProduct(Transpose transpose_a, Transpose transpose_b, float alpha, const TensorView& a,
                  const TensorView& b, float beta, const TensorView& c, const Epilogue& epilogue,
                  Stream& stream) {
  const bool bias_gradient = epilogue.kind == Epilogue::Kind::kBiasGradient;
  // Whether the library's bias gradient takes part in alpha is not documented.
  if (bias_gradient && alpha != 1) return false;
  ProductShape shape;
  shape.a = OperandOf(a);
  shape.b = OperandOf(b);
  shape.c = OperandOf(c);
  shape.transpose_a = transpose_a == Transpose::kYes;
  shape.transpose_b = transpose_b == Transpose::kYes;
  shape.m = c.dim(0);
  shape.n = c.dim(1);
  shape.k = a.dim(shape.transpose_a ? 0 : 1);
  shape.reads_c = beta != 0;
  shape.epilogue = epilogue.kind;
  if (epilogue.pre_activation.rank() > 0) {
    shape.pre_activation = OperandOf(epilogue.pre_activation);
    shape.pre_activation.alignment = std::min(shape.pre_activation.alignment, kEpilogueAlignment);
  }
  ProductMemory memory{a.raw(), b.raw(), c.raw(), epilogue.bias.raw(),
                       epilogue.pre_activation.raw()};

  Call call(stream);
  absl::StatusOr<MatrixProducts*> products = CudaContext::Of(stream).Products();
  call.Update(products.status());
  // The library overwrites bias gradients.
  float* const dbias = bias_gradient ? call.Allocate<float>(shape.n) : nullptr;
  if (bias_gradient) memory.bias = dbias;
  if (memory.bias != nullptr)
    shape.bias_alignment = std::min(AlignmentOf(memory.bias), kEpilogueAlignment);
  void* const workspace = call.MatrixProductWorkspace();
  if (!call.ok()) return true;
  const absl::StatusOr<bool> fuses = (*products)->Fuses(shape);
  call.Update(fuses.status());
  if (!call.ok()) return true;
  if (!*fuses) return false;
  call.Update((*products)->Run(shape, alpha, beta, memory, workspace, call.native()));
  if (bias_gradient && call.ok()) {
    call.Update(AddRows(TensorView::Of(dbias, {shape.n}), epilogue.bias, call.native()),
                "the gradient of a bias");
  }
  return true;
}

}  // namespace

void Gemm(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b,
          float beta, TensorView c, const Epilogue& epilogue, Stream& stream) {
  using Kind = Epilogue::Kind;
  if (a.empty()) {
    if (epilogue.kind == Kind::kNone) return ScaleOnly(beta, c, stream);
  } else if (QueueProduct(transpose_a, transpose_b, alpha, a, b, beta, c, epilogue, stream)) {
    return;
  }
  // One after the other.
  const auto product = [&](const TensorView& into, const Epilogue& with = {}) {
    Gemm(transpose_a, transpose_b, alpha, a, b, beta, into, with, stream);
  };
  switch (epilogue.kind) {
    case Kind::kNone:
      return;
    case Kind::kBias:
      product(c);
      return AddBias(epilogue.bias, c, stream);
    case Kind::kBiasGelu:
      product(epilogue.pre_activation, Epilogue::Bias(epilogue.bias));
      return GeluForward(epilogue.pre_activation, c, stream);
    case Kind::kGeluGradient:
      product(c);
      return GeluBackward(c, epilogue.pre_activation, c, stream);
    case Kind::kBiasGradient:
      product(c);
      return BiasBackward(b, epilogue.bias, stream);
  }
}

void RmsNormForward(TensorView x, TensorView weight, float eps, TensorView y, TensorView rstd,
                    Stream& stream) {
  Report(NormForward(x, weight, TensorView(), eps, y, TensorView(), rstd, Native(stream)),
         "rms_norm_forward", stream);
}

void RmsNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView rstd, TensorView dx,
                     TensorView dweight, Stream& stream) {
  Call call(stream);
  float* const partials = call.Allocate<float>(NormPartials(x.dim(0), x.dim(1), false));
  if (!call.ok()) return;
  call.Update(NormBackward(dy, x, weight, TensorView(), rstd, dx, dweight, TensorView(), partials,
                           call.native()),
              "rms_norm_backward");
}

void LayerNormForward(TensorView x, TensorView weight, TensorView bias, float eps, TensorView y,
                      TensorView mean, TensorView rstd, Stream& stream) {
  Report(NormForward(x, weight, bias, eps, y, mean, rstd, Native(stream)), "layer_norm_forward",
         stream);
}

void LayerNormBackward(TensorView dy, TensorView x, TensorView weight, TensorView mean,
                       TensorView rstd, TensorView dx, TensorView dweight, TensorView dbias,
                       Stream& stream) {
  Call call(stream);
  float* const partials = call.Allocate<float>(NormPartials(x.dim(0), x.dim(1), true));
  if (!call.ok()) return;
  call.Update(NormBackward(dy, x, weight, mean, rstd, dx, dweight, dbias, partials, call.native()),
              "layer_norm_backward");
}

void Rope(TensorView x, TensorView positions, double base, float direction, Stream& stream) {
  LONGSPAN_CHECK(x.dim(2) <= kMostRopeHeadDim, "on a GPU head_dim is at most 512");
  Report(RotateRows(x, positions, base, direction, Native(stream)), "rope", stream);
}

void SwiGluForward(TensorView gate_up, TensorView y, Stream& stream) {
  Report(SwiGluForwardRows(gate_up, y, Native(stream)), "swiglu_forward", stream);
}

void SwiGluBackward(TensorView dy, TensorView gate_up, TensorView dgate_up, Stream& stream) {
  Report(SwiGluBackwardRows(dy, gate_up, dgate_up, Native(stream)), "swiglu_backward", stream);
}

void GeluForward(TensorView x, TensorView y, Stream& stream) {
  Report(GeluForwardRows(x, y, Native(stream)), "gelu_forward", stream);
}

void GeluBackward(TensorView dy, TensorView x, TensorView dx, Stream& stream) {
  Report(GeluBackwardRows(dy, x, dx, Native(stream)), "gelu_backward", stream);
}

void EmbeddingForward(TensorView ids, TensorView table, bool accumulate, TensorView out,
                      Stream& stream) {
  Report(LookUpRows(ids, table, accumulate, out, Native(stream)), "embedding_forward", stream);
}

void EmbeddingBackward(TensorView ids, TensorView dout, TensorView dtable, Stream& stream) {
  Call call(stream);
  char* const memory = call.Allocate<char>(AddToTableBytes(dout.dim(0), dout.dim(1)));
  if (!call.ok()) return;
  call.Update(AddToTable(ids, dout, dtable, memory, call.native()), "embedding_backward");
}

void LinearCrossEntropy(TensorView hidden, TensorView weight, TensorView targets, TensorView losses,
                        TensorView dhidden, TensorView dweight, TensorView workspace,
                        Stream& stream) {
  const int64_t rows = hidden.dim(0), vocabulary = weight.dim(0), chunk = workspace.dim(0);
  const bool narrow = hidden.dtype() == DType::kBF16;
  const LogitGradient gradient = dhidden.rank() == 0 ? LogitGradient::kNone
                                 : narrow            ? LogitGradient::kBF16
                                                     : LogitGradient::kF32;
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const TensorView x = hidden.Slice(0, begin, end);
    const TensorView logits = workspace.Slice(0, 0, end - begin);
    longspan::Gemm(Transpose::kNo, Transpose::kYes, 1.0f, x, weight, 0.0f, logits, stream);
    Report(CrossEntropyRows(logits, targets.Slice(0, begin, end), losses.Slice(0, begin, end),
                            gradient, Native(stream)),
           "cross_entropy", stream);
    if (gradient == LogitGradient::kNone) continue;
    TensorView slope = logits;
    if (narrow) {
      slope = TensorView(logits.raw(), DType::kBF16, {end - begin, 2 * workspace.stride(0)})
                  .Slice(1, 0, vocabulary);
    }
    longspan::Gemm(Transpose::kNo, Transpose::kNo, 1.0f, slope, weight, 0.0f,
                   dhidden.Slice(0, begin, end), stream);
    longspan::Gemm(Transpose::kYes, Transpose::kNo, 1.0f, slope, x, 1.0f, dweight, stream);
  }
}

void Zero(TensorView x, Stream& stream) {
  if (x.empty()) return;
  Report(cudaMemsetAsync(x.raw(), 0, static_cast<size_t>(x.bytes()), Native(stream)), "zero",
         stream);
}

void Copy(TensorView x, TensorView y, Stream& stream) {
  Report(CopyRowsOf(x, y, Native(stream)), "copy", stream);
}

void Convert(TensorView x, TensorView y, Stream& stream) {
  Report(ConvertRows(x, y, Native(stream)), "convert", stream);
}

void Add(TensorView x, TensorView y, Stream& stream) {
  Report(AddRows(x, y, Native(stream)), "add", stream);
}

void AddBias(TensorView bias, TensorView y, Stream& stream) {
  Report(AddBiasRows(bias, y, Native(stream)), "add_bias", stream);
}

void BiasBackward(TensorView dy, TensorView dbias, Stream& stream) {
  Call call(stream);
  float* const partials = call.Allocate<float>(ColumnSumPartials(dy.dim(0), dy.dim(1)));
  if (!call.ok()) return;
  call.Update(AddColumnSums(dy, dbias, partials, call.native()), "bias_backward");
}

void AccumulateGradientStatistics(TensorView gradient, TensorView statistics, Stream& stream) {
  const int64_t count = gradient.elements();
  Call call(stream);
  double* const partials = call.Allocate<double>(PassPartials(count));
  if (!call.ok()) return;
  call.Update(AddGradientStatistics(gradient.data<float>(), count, partials,
                                    statistics.data<double>(), call.native()),
              "gradient_statistics");
}

void AdamWUpdate(const AdamWParameters& p, TensorView gradient, TensorView parameter,
                 TensorView first_moment, TensorView second_moment, TensorView adam_sum,
                 const WrittenSums& written, Stream& stream) {
  AdamWFactors factors = {};
  factors.gradient_scale = static_cast<float>(p.gradient_scale);
  factors.keep = static_cast<float>(1.0 - p.rate * p.weight_decay);
  factors.beta1 = static_cast<float>(p.beta1);
  factors.one_minus_beta1 = static_cast<float>(1.0 - p.beta1);
  factors.beta2 = static_cast<float>(p.beta2);
  factors.one_minus_beta2 = static_cast<float>(1.0 - p.beta2);
  factors.step_size = static_cast<float>(p.rate / (1.0 - std::pow(p.beta1, p.step)));
  factors.root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(p.beta2, p.step)));
  factors.eps = static_cast<float>(p.eps);
  const int64_t count = gradient.elements();
  const bool with_sum = adam_sum.rank() > 0;
  Call call(stream);
  double* const partials = call.Allocate<double>(with_sum ? PassPartials(count) : 0);
  if (!call.ok()) return;
  call.Update(
      UpdateByAdamW(factors, gradient.data<float>(), count, parameter.data<float>(),
                    first_moment.data<float>(), second_moment.data<float>(), partials,
                    with_sum ? adam_sum.data<double>() : nullptr, SumsOf(written), call.native()),
      "adamw");
}

void SgdUpdate(const SgdParameters& p, TensorView gradient, TensorView parameter,
               TensorView momentum, const WrittenSums& written, Stream& stream) {
  const SgdFactors factors{static_cast<float>(p.rate), static_cast<float>(p.momentum),
                           static_cast<float>(p.weight_decay),
                           static_cast<float>(p.gradient_scale)};
  Report(UpdateBySgd(factors, gradient.data<float>(), gradient.elements(), parameter.data<float>(),
                     momentum.data<float>(), SumsOf(written), Native(stream)),
         "sgd", stream);
}

}  // namespace longspan::cuda
