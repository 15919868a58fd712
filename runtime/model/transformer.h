// Transformer: forward and backward of one micro-batch, written out by hand for the Llama and GPT-2
// families.
//
// Every call queues its work on a stream and returns. Gradients are those of the *unscaled sum* of
// token losses and accumulate; the optimizer applies 1/N once (hybrid data parallelism: a gradient
// is a sum over tokens). On the CPU all is f32. On a GPU weights, activations and the residual
// stream are bf16 (half the memory and traffic; the parameters that an optimizer changes stay f32),
// and norms' statistics, attention's accumulation, logits, losses and gradients of weights f32.
// Thread-safety: one thread queues work. Ownership: the transformer owns
// activations and scratch; weights and gradients are the caller's arenas.
#ifndef LONGSPAN_RUNTIME_MODEL_TRANSFORMER_H_
#define LONGSPAN_RUNTIME_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "runtime/model/activation_store.h"
#include "runtime/model/attention_pattern.h"
#include "runtime/model/model_config.h"
#include "runtime/model/weights.h"

namespace longspan {

// The tokens of one micro-batch, in host memory; a GPU takes them over from there, without stopping
// the host where the memory is pinned. Views stay valid until the queued work is done.
struct TokenBatch {
  TensorView ids;        // i32 (rows)
  TensorView positions;  // i32 (rows): position in the sequence
  TensorView targets;    // i32 (rows); empty where only logits are wanted
  int64_t rows() const { return ids.dim(0); }
};

class Transformer {
 public:
  // For micro-batches of up to `max_rows` tokens. `for_training` false keeps one layer's
  // activations only.
  static absl::StatusOr<std::unique_ptr<Transformer>> Create(const ModelConfig& config,
                                                             int64_t max_rows, bool for_training,
                                                             Device& device);

  // What Create allocates of a device's memory, by tag.
  struct Sizes {
    int64_t activation_bytes = 0, scratch_bytes = 0;
  };
  static Sizes SizesOf(const ModelConfig& config, int64_t max_rows, bool for_training,
                       DeviceKind kind);

  const ModelConfig& config() const { return config_; }

  // Losses of every row go to `losses`, f32 (rows) on the device; gradients are added to
  // `gradients`.
  absl::Status ForwardBackward(const TokenBatch& batch, AttentionPattern& attention,
                               const Weights& weights, const Weights& gradients, TensorView losses,
                               Stream& stream);
  // Losses alone.
  absl::Status Evaluate(const TokenBatch& batch, AttentionPattern& attention,
                        const Weights& weights, TensorView losses, Stream& stream);
  // Logits of the last row: f32 (1, vocab), on the device.
  absl::Status LastLogits(const TokenBatch& batch, AttentionPattern& attention,
                          const Weights& weights, TensorView logits, Stream& stream);
  // Logits of every row: f32 (rows, vocab), on the device. For checks against other
  // implementations.
  absl::Status Logits(const TokenBatch& batch, AttentionPattern& attention, const Weights& weights,
                      TensorView logits, Stream& stream);

 private:
  Transformer(const ModelConfig& config, DType compute) : config_(config), compute_(compute) {}

  // Scratch that no two uses need at once, for max_rows tokens. Of the dtype that is computed in
  // where none is named.
  struct Scratch {
    TensorView normed;     // (rows, width): output of a norm
    TensorView hidden;     // (rows, ffn): activation of the feed-forward part
    TensorView dresidual;  // (rows, width): gradient of the residual stream
    TensorView dnormed;    // (rows, width)
    TensorView dhidden;    // (rows, max(ffn, width))
    TensorView dqkv;       // f32 (rows, qkv_width)
    TensorView delta;      // f32 (rows, heads)
    // On a GPU alone: attention gives f32, products take bf16; and the tokens' twin there.
    TensorView attention;     // f32 (rows, width): output of attention
    TensorView dqkv_compute;  // (rows, qkv_width)
    TensorView tokens;        // i32 (rows, 3)
    TensorView logits;        // f32 (chunk, vocab)
  };
  struct ScratchTensor {
    TensorView Scratch::*view;
    int64_t rows = 0, columns = 0;
    DType dtype = DType::kF32;
    int64_t bytes() const;  // padded
  };
  static std::vector<ScratchTensor> ScratchTensors(const ModelConfig& config, int64_t max_rows,
                                                   bool for_training, DeviceKind kind);
  // The scratch tensors cut to a micro-batch.
  Scratch Rows(int64_t rows) const;
  bool narrow() const { return compute_ != DType::kF32; }
  // The tokens where the device reads them.
  TokenBatch OnDevice(const TokenBatch& batch, Stream& stream) const;

  int activation_layer(int layer) const { return for_training_ ? layer : layer % 2; }
  absl::Status Forward(const TokenBatch& batch, AttentionPattern& attention, const Weights& weights,
                       Stream& stream);
  absl::Status ForwardLayer(int layer, const TokenBatch& batch, AttentionPattern& attention,
                            const LayerWeights& weights, Stream& stream);
  absl::Status BackwardLayer(int layer, const TokenBatch& batch, AttentionPattern& attention,
                             const LayerWeights& weights, const LayerWeights& gradients,
                             Stream& stream);
  void FinalNorm(const Weights& weights, int64_t rows, Stream& stream);

  void NormForward(const NormWeights& weights, TensorView x, TensorView y, TensorView statistics,
                   Stream& stream) const;
  void NormBackward(const NormWeights& weights, const NormWeights& gradients, TensorView dy,
                    TensorView x, TensorView statistics, TensorView dx, Stream& stream) const;

  ModelConfig config_;
  const DType compute_;
  bool for_training_ = true;
  int64_t max_rows_ = 0;
  std::unique_ptr<ActivationStore> store_;
  Buffer scratch_buffer_;
  Scratch scratch_;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_TRANSFORMER_H_
