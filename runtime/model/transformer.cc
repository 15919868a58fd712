#include "runtime/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/activation.h"
#include "kernels/cross_entropy.h"
#include "kernels/device/trace.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/normalization.h"
#include "kernels/rope.h"

namespace longspan {
namespace {

// What the backward pass needs of each layer. Norm outputs and feed-forward activations are
// computed again: they cost little and are as large as what is kept.
enum Slot : int {
  kInput,            // residual stream before the attention norm (rows, width)
  kInputStatistics,  // mean, rstd of that norm: two columns of rows
  kQkv,              // after rotation (rows, qkv_width)
  kAttentionOut,     // (rows, width)
  kLogSumExp,        // (rows, heads)
  kMiddle,           // residual stream before the feed-forward norm (rows, width)
  kMiddleStatistics,
  kFfnIn,  // before the activation (rows, ffn_in_width)
};

std::vector<ActivationStore::Slot> Slots(const ModelConfig& c, DType compute) {
  return {{"input", c.width, compute},     {"input_statistics", 2},
          {"qkv", c.qkv_width(), compute}, {"attention_out", c.width, compute},
          {"log_sum_exp", c.heads},        {"middle", c.width, compute},
          {"middle_statistics", 2},        {"ffn_in", c.ffn_in_width(), compute}};
}

Transpose AcrossOf(const LinearWeights& w) {
  return w.input_major ? Transpose::kNo : Transpose::kYes;
}

// One layer more for the input of the final norm. Without a backward pass two layers take turns.
int StoredLayers(const ModelConfig& config, bool for_training) {
  return for_training ? config.layers + 1 : 2;
}

// y = x W^T + b, or y += with `accumulate`.
void LinearForward(const LinearWeights& w, TensorView x, bool accumulate, TensorView y,
                   Stream& stream) {
  Gemm(Transpose::kNo, AcrossOf(w), 1, x, w.weight, accumulate ? 1 : 0, y, stream,
       Epilogue::Bias(w.bias));
}

// dx = dy W, then the epilogue; dW += and db +=.
void LinearBackward(const LinearWeights& w, const LinearWeights& gradients, TensorView x,
                    TensorView dy, TensorView dx, Stream& stream, const Epilogue& epilogue = {}) {
  if (w.input_major) {
    Gemm(Transpose::kYes, Transpose::kNo, 1, x, dy, 1, gradients.weight, stream,
         Epilogue::BiasGradient(gradients.bias));
    Gemm(Transpose::kNo, Transpose::kYes, 1, dy, w.weight, 0, dx, stream, epilogue);
  } else {
    LONGSPAN_CHECK(w.bias.empty(), "a bias goes with weights that lie by inputs");
    Gemm(Transpose::kYes, Transpose::kNo, 1, dy, x, 1, gradients.weight, stream);
    Gemm(Transpose::kNo, Transpose::kNo, 1, dy, w.weight, 0, dx, stream, epilogue);
  }
}

// Queries, keys and values of a fused (rows, qkv_width) tensor as (rows, heads, head_dim).
struct Heads {
  TensorView q, k, v;
  TensorView qk;  // queries and keys side by side: what is rotated
};

Heads SplitHeads(const ModelConfig& c, TensorView qkv) {
  const int64_t rows = qkv.dim(0), d = c.head_dim(), kv = c.kv_width();
  const auto part = [&](int64_t begin, int64_t width) {
    return qkv.Slice(1, begin, begin + width).Reshape({rows, width / d, d});
  };
  return {part(0, c.width), part(c.width, kv), part(c.width + kv, kv), part(0, c.width + kv)};
}

// A norm's statistics slot holds two vectors, one after the other: mean (LayerNorm alone), rstd.
TensorView StatisticsVector(TensorView statistics, int64_t index) {
  const int64_t rows = statistics.dim(0);
  return statistics.Reshape({2 * rows}).Slice(0, index * rows, (index + 1) * rows);
}
TensorView Mean(TensorView statistics) { return StatisticsVector(statistics, 0); }
TensorView Rstd(TensorView statistics) { return StatisticsVector(statistics, 1); }

// A contiguous (rows, columns) tensor in the memory of a wider one.
TensorView Narrow(TensorView wide, int64_t columns) {
  const int64_t rows = wide.dim(0);
  return wide.Reshape({wide.elements()}).Slice(0, 0, rows * columns).Reshape({rows, columns});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Create(const ModelConfig& config,
                                                                 int64_t max_rows,
                                                                 bool for_training,
                                                                 Device& device) {
  if (absl::Status status = config.Check(); !status.ok()) return status;
  const DType compute = ComputeTypeOf(device);
  auto transformer = std::unique_ptr<Transformer>(new Transformer(config, compute));
  transformer->for_training_ = for_training;
  transformer->max_rows_ = max_rows;
  absl::StatusOr<ActivationStore> store = ActivationStore::Create(
      device.memory(), Slots(config, compute), StoredLayers(config, for_training), max_rows);
  if (!store.ok()) return store.status();
  transformer->store_ = std::make_unique<ActivationStore>(*std::move(store));

  const std::vector<ScratchTensor> tensors =
      ScratchTensors(config, max_rows, for_training, device.kind());
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(
      device.memory(), SizesOf(config, max_rows, for_training, device.kind()).scratch_bytes,
      "scratch", Placement::kDevice);
  if (!buffer.ok()) return buffer.status();
  transformer->scratch_buffer_ = *std::move(buffer);
  int64_t offset = 0;
  for (const ScratchTensor& tensor : tensors) {
    transformer->scratch_.*tensor.view =
        transformer->scratch_buffer_.Tensor(tensor.dtype, {tensor.rows, tensor.columns}, offset);
    offset += tensor.bytes();
  }
  return transformer;
}

int64_t Transformer::ScratchTensor::bytes() const {
  constexpr int64_t kAlignment = 16;
  const int64_t exact = rows * columns * SizeOf(dtype);
  return (exact + kAlignment - 1) / kAlignment * kAlignment;
}

std::vector<Transformer::ScratchTensor> Transformer::ScratchTensors(const ModelConfig& c,
                                                                    int64_t max_rows,
                                                                    bool for_training,
                                                                    DeviceKind kind) {
  const DType compute = ComputeTypeOf(kind);
  const int64_t backward = for_training ? 1 : 0, gpu = compute != DType::kF32 ? 1 : 0;
  const int64_t chunk = std::min(CrossEntropyChunkRows(c.vocab, kind), max_rows);
  return {{&Scratch::logits, chunk, c.vocab, DType::kF32},
          {&Scratch::normed, max_rows, c.width, compute},
          {&Scratch::hidden, max_rows, c.ffn, compute},
          {&Scratch::dresidual, max_rows, backward * c.width, compute},
          {&Scratch::dnormed, max_rows, backward * c.width, compute},
          {&Scratch::dhidden, max_rows, backward * std::max(c.ffn, c.width), compute},
          {&Scratch::dqkv, max_rows, backward * c.qkv_width(), DType::kF32},
          {&Scratch::delta, max_rows, backward * c.heads, DType::kF32},
          {&Scratch::attention, max_rows, gpu * c.width, DType::kF32},
          {&Scratch::dqkv_compute, max_rows, gpu * backward * c.qkv_width(), compute},
          {&Scratch::tokens, max_rows, gpu * 3, DType::kI32}};
}

Transformer::Sizes Transformer::SizesOf(const ModelConfig& config, int64_t max_rows,
                                        bool for_training, DeviceKind kind) {
  Sizes sizes;
  sizes.activation_bytes = ActivationStore::Bytes(Slots(config, ComputeTypeOf(kind)),
                                                  StoredLayers(config, for_training), max_rows);
  for (const ScratchTensor& tensor : ScratchTensors(config, max_rows, for_training, kind)) {
    sizes.scratch_bytes += tensor.bytes();
  }
  return sizes;
}

Transformer::Scratch Transformer::Rows(int64_t rows) const {
  Scratch cut;
  for (TensorView Scratch::*view :
       {&Scratch::normed, &Scratch::hidden, &Scratch::dresidual, &Scratch::dnormed,
        &Scratch::dhidden, &Scratch::dqkv, &Scratch::delta, &Scratch::attention,
        &Scratch::dqkv_compute, &Scratch::tokens}) {
    cut.*view = (scratch_.*view).Slice(0, 0, rows);
  }
  cut.logits = scratch_.logits;
  return cut;
}

TokenBatch Transformer::OnDevice(const TokenBatch& batch, Stream& stream) const {
  if (!narrow()) return batch;
  TokenBatch on_device;
  int64_t begin = 0;
  const TensorView memory = scratch_.tokens.Reshape({3 * max_rows_});
  for (TensorView TokenBatch::*tokens :
       {&TokenBatch::ids, &TokenBatch::positions, &TokenBatch::targets}) {
    const TensorView& from = batch.*tokens;
    if (from.rank() > 0) {
      on_device.*tokens = memory.Slice(0, begin, begin + batch.rows());
      stream.CopyBytes(from.raw(), (on_device.*tokens).raw(), from.bytes());
    }
    begin += max_rows_;
  }
  return on_device;
}

void Transformer::NormForward(const NormWeights& weights, TensorView x, TensorView y,
                              TensorView statistics, Stream& stream) const {
  if (weights.bias.empty()) {
    RmsNormForward(x, weights.weight, config_.norm_eps, y, Rstd(statistics), stream);
  } else {
    LayerNormForward(x, weights.weight, weights.bias, config_.norm_eps, y, Mean(statistics),
                     Rstd(statistics), stream);
  }
}

void Transformer::NormBackward(const NormWeights& weights, const NormWeights& gradients,
                               TensorView dy, TensorView x, TensorView statistics, TensorView dx,
                               Stream& stream) const {
  if (weights.bias.empty()) {
    RmsNormBackward(dy, x, weights.weight, Rstd(statistics), dx, gradients.weight, stream);
  } else {
    LayerNormBackward(dy, x, weights.weight, Mean(statistics), Rstd(statistics), dx,
                      gradients.weight, gradients.bias, stream);
  }
}

absl::Status Transformer::ForwardLayer(int layer, const TokenBatch& batch,
                                       AttentionPattern& attention, const LayerWeights& weights,
                                       Stream& stream) {
  const StreamSpan span(stream, {.name = "layer", .kind = TraceKind::kTask, .layer = layer});
  const int at = activation_layer(layer), next = activation_layer(layer + 1);
  const Scratch s = Rows(batch.rows());
  const TensorView x = store_->Save(at, kInput);
  const TensorView qkv = store_->Save(at, kQkv), out = store_->Save(at, kAttentionOut);
  NormForward(weights.attention_norm, x, s.normed, store_->Save(at, kInputStatistics), stream);
  LinearForward(weights.qkv, s.normed, /*accumulate=*/false, qkv, stream);
  const Heads heads = SplitHeads(config_, qkv);
  if (config_.family == ModelFamily::kLlama)
    RopeForward(heads.qk, batch.positions, config_.rope_base, stream);
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim()));
  const TensorView result = narrow() ? s.attention : out;
  absl::Status status =
      attention.Forward(layer, heads.q, heads.k, heads.v, scale,
                        result.Reshape({batch.rows(), config_.heads, config_.head_dim()}),
                        store_->Save(at, kLogSumExp), stream);
  if (!status.ok()) return status;
  if (narrow()) Convert(result, out, stream);

  const TensorView middle = store_->Save(at, kMiddle);
  Copy(x, middle, stream);
  LinearForward(weights.out, out, /*accumulate=*/true, middle, stream);

  const TensorView ffn_in = store_->Save(at, kFfnIn);
  NormForward(weights.ffn_norm, middle, s.normed, store_->Save(at, kMiddleStatistics), stream);
  if (config_.family == ModelFamily::kLlama) {
    LinearForward(weights.ffn_in, s.normed, /*accumulate=*/false, ffn_in, stream);
    SwiGluForward(ffn_in, s.hidden, stream);
  } else {
    Gemm(Transpose::kNo, AcrossOf(weights.ffn_in), 1, s.normed, weights.ffn_in.weight, 0, s.hidden,
         stream, Epilogue::BiasGelu(weights.ffn_in.bias, ffn_in));
  }
  const TensorView layer_out = store_->Save(next, kInput);
  Copy(middle, layer_out, stream);
  LinearForward(weights.ffn_out, s.hidden, /*accumulate=*/true, layer_out, stream);
  return absl::OkStatus();
}

absl::Status Transformer::BackwardLayer(int layer, const TokenBatch& batch,
                                        AttentionPattern& attention, const LayerWeights& weights,
                                        const LayerWeights& gradients, Stream& stream) {
  const StreamSpan span(stream, {.name = "layer", .kind = TraceKind::kTask, .layer = layer});
  const Scratch s = Rows(batch.rows());
  const TensorView x = store_->Load(layer, kInput, stream),
                   middle = store_->Load(layer, kMiddle, stream);
  const TensorView x_statistics = store_->Load(layer, kInputStatistics, stream);
  const TensorView middle_statistics = store_->Load(layer, kMiddleStatistics, stream);
  const TensorView dx = s.dresidual;  // comes in as the gradient of the layer's output

  // Feed-forward part.
  const TensorView ffn_in = store_->Load(layer, kFfnIn, stream);
  const TensorView dhidden = Narrow(s.dhidden, config_.ffn);
  TensorView dffn_in = dhidden;
  if (config_.family == ModelFamily::kLlama) {
    dffn_in = ffn_in;  // the slot is turned into its gradient
    SwiGluForward(ffn_in, s.hidden, stream);
    LinearBackward(weights.ffn_out, gradients.ffn_out, s.hidden, dx, dhidden, stream);
    SwiGluBackward(dhidden, ffn_in, dffn_in, stream);
  } else {
    GeluForward(ffn_in, s.hidden, stream);
    LinearBackward(weights.ffn_out, gradients.ffn_out, s.hidden, dx, dffn_in, stream,
                   Epilogue::GeluGradient(ffn_in));
  }
  NormForward(weights.ffn_norm, middle, s.normed, middle_statistics, stream);
  LinearBackward(weights.ffn_in, gradients.ffn_in, s.normed, dffn_in, s.dnormed, stream);
  NormBackward(weights.ffn_norm, gradients.ffn_norm, s.dnormed, middle, middle_statistics, dx,
               stream);

  // Attention part.
  const TensorView qkv = store_->Load(layer, kQkv, stream),
                   out = store_->Load(layer, kAttentionOut, stream);
  const TensorView dout = Narrow(s.dhidden, config_.width);
  LinearBackward(weights.out, gradients.out, out, dx, dout, stream);
  if (narrow()) Convert(out, s.attention, stream);
  const TensorView result = narrow() ? s.attention : out;
  Zero(s.dqkv, stream);
  const Heads heads = SplitHeads(config_, qkv), dheads = SplitHeads(config_, s.dqkv);
  const auto by_head = [&](TensorView view) {
    return view.Reshape({batch.rows(), config_.heads, config_.head_dim()});
  };
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim()));
  absl::Status status = attention.Backward(layer, heads.q, heads.k, heads.v, by_head(result),
                                           store_->Load(layer, kLogSumExp, stream), by_head(dout),
                                           scale, s.delta, dheads.q, dheads.k, dheads.v, stream);
  if (!status.ok()) return status;
  if (config_.family == ModelFamily::kLlama)
    RopeBackward(dheads.qk, batch.positions, config_.rope_base, stream);
  if (narrow()) Convert(s.dqkv, s.dqkv_compute, stream);
  const TensorView dqkv = narrow() ? s.dqkv_compute : s.dqkv;
  NormForward(weights.attention_norm, x, s.normed, x_statistics, stream);
  LinearBackward(weights.qkv, gradients.qkv, s.normed, dqkv, s.dnormed, stream);
  NormBackward(weights.attention_norm, gradients.attention_norm, s.dnormed, x, x_statistics, dx,
               stream);
  return absl::OkStatus();
}

absl::Status Transformer::Forward(const TokenBatch& batch, AttentionPattern& attention,
                                  const Weights& weights, Stream& stream) {
  const StreamSpan span(stream, {"forward", TraceKind::kTask});
  store_->Begin(batch.rows());
  const TensorView x = store_->Save(activation_layer(0), kInput);
  EmbeddingForward(batch.ids, weights.embedding, /*accumulate=*/false, x, stream);
  if (!weights.positions.empty())
    EmbeddingForward(batch.positions, weights.positions, /*accumulate=*/true, x, stream);
  for (int layer = 0; layer < config_.layers; ++layer) {
    absl::Status status = ForwardLayer(layer, batch, attention, weights.layers[layer], stream);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void Transformer::FinalNorm(const Weights& weights, int64_t rows, Stream& stream) {
  const int last = activation_layer(config_.layers);
  NormForward(weights.final_norm, store_->Save(last, kInput), Rows(rows).normed,
              store_->Save(last, kInputStatistics), stream);
}

absl::Status Transformer::ForwardBackward(const TokenBatch& tokens, AttentionPattern& attention,
                                          const Weights& weights, const Weights& gradients,
                                          TensorView losses, Stream& stream) {
  LONGSPAN_CHECK(for_training_, "made without a backward pass");
  const TokenBatch batch = OnDevice(tokens, stream);
  absl::Status status = Forward(batch, attention, weights, stream);
  if (!status.ok()) return status;
  const Scratch s = Rows(batch.rows());
  {
    const StreamSpan span(stream, {"loss", TraceKind::kTask});
    FinalNorm(weights, batch.rows(), stream);
    LinearCrossEntropy(s.normed, weights.head, batch.targets, losses, s.dnormed, gradients.head,
                       s.logits, stream);
  }
  const StreamSpan span(stream, {"backward", TraceKind::kTask});
  Zero(s.dresidual, stream);
  NormBackward(weights.final_norm, gradients.final_norm, s.dnormed,
               store_->Load(config_.layers, kInput, stream),
               store_->Load(config_.layers, kInputStatistics, stream), s.dresidual, stream);
  for (int layer = config_.layers - 1; layer >= 0; --layer) {
    status = BackwardLayer(layer, batch, attention, weights.layers[layer], gradients.layers[layer],
                           stream);
    if (!status.ok()) return status;
  }
  EmbeddingBackward(batch.ids, s.dresidual, gradients.embedding, stream);
  if (!weights.positions.empty())
    EmbeddingBackward(batch.positions, s.dresidual, gradients.positions, stream);
  return absl::OkStatus();
}

absl::Status Transformer::Evaluate(const TokenBatch& tokens, AttentionPattern& attention,
                                   const Weights& weights, TensorView losses, Stream& stream) {
  const TokenBatch batch = OnDevice(tokens, stream);
  absl::Status status = Forward(batch, attention, weights, stream);
  if (!status.ok()) return status;
  FinalNorm(weights, batch.rows(), stream);
  LinearCrossEntropy(Rows(batch.rows()).normed, weights.head, batch.targets, losses, TensorView(),
                     TensorView(), scratch_.logits, stream);
  return absl::OkStatus();
}

absl::Status Transformer::Logits(const TokenBatch& tokens, AttentionPattern& attention,
                                 const Weights& weights, TensorView logits, Stream& stream) {
  const TokenBatch batch = OnDevice(tokens, stream);
  absl::Status status = Forward(batch, attention, weights, stream);
  if (!status.ok()) return status;
  FinalNorm(weights, batch.rows(), stream);
  Gemm(Transpose::kNo, Transpose::kYes, 1, Rows(batch.rows()).normed, weights.head, 0, logits,
       stream);
  return absl::OkStatus();
}

absl::Status Transformer::LastLogits(const TokenBatch& tokens, AttentionPattern& attention,
                                     const Weights& weights, TensorView logits, Stream& stream) {
  const TokenBatch batch = OnDevice(tokens, stream);
  absl::Status status = Forward(batch, attention, weights, stream);
  if (!status.ok()) return status;
  FinalNorm(weights, batch.rows(), stream);
  const TensorView last = Rows(batch.rows()).normed.Slice(0, batch.rows() - 1, batch.rows());
  Gemm(Transpose::kNo, Transpose::kYes, 1, last, weights.head, 0, logits, stream);
  return absl::OkStatus();
}

}  // namespace longspan
