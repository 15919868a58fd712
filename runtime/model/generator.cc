#include "runtime/model/generator.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/attention.h"
#include "kernels/device/mirrored_buffer.h"
#include "kernels/elementwise.h"
#include "runtime/model/transformer.h"

namespace longspan {
namespace {

// New rows follow the rows of a cache; forward only.
class CachedAttention : public AttentionPattern {
 public:
  CachedAttention(const ModelConfig& config, TensorView keys, TensorView values)
      : config_(config), keys_(keys), values_(values) {}

  int64_t cached() const { return cached_; }
  void Advance(int64_t rows) { cached_ += rows; }

  absl::Status Forward(int layer, TensorView q, TensorView k, TensorView v, float scale,
                       TensorView out, TensorView lse, Stream& stream) override {
    const int64_t rows = q.dim(0), end = cached_ + rows;
    const auto cache = [&](TensorView all) {
      return all.Slice(0, layer, layer + 1)
          .Reshape({all.dim(1), config_.kv_heads, config_.head_dim()})
          .Slice(0, 0, end);
    };
    const TensorView keys = cache(keys_), values = cache(values_);
    Copy(k, keys.Slice(0, cached_, end), stream);
    Copy(v, values.Slice(0, cached_, end), stream);
    AttentionForward(q, keys, values, {{0, rows, 0, end, /*causal=*/true, config_.window, cached_}},
                     scale, out, lse, stream);
    return absl::OkStatus();
  }

  absl::Status Backward(int, TensorView, TensorView, TensorView, TensorView, TensorView, TensorView,
                        float, TensorView, TensorView, TensorView, TensorView, Stream&) override {
    return absl::FailedPreconditionError("a cache has no backward pass");
  }

 private:
  const ModelConfig& config_;
  TensorView keys_, values_;  // (layers, tokens, kv_width)
  int64_t cached_ = 0;
};

int32_t Sample(const float* logits, int64_t vocabulary, const SamplingOptions& options,
               std::mt19937_64& random) {
  std::vector<int32_t> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  const auto higher = [&](int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  if (options.temperature <= 0) return *std::min_element(order.begin(), order.end(), higher);
  const int64_t count = options.top_k > 0 ? std::min(options.top_k, vocabulary) : vocabulary;
  std::partial_sort(order.begin(), order.begin() + count, order.end(), higher);
  std::vector<double> weights(count);
  for (int64_t i = 0; i < count; ++i) {
    weights[i] =
        std::exp((static_cast<double>(logits[order[i]]) - logits[order[0]]) / options.temperature);
  }
  // Not std::discrete_distribution: its results differ between standard libraries.
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double point = static_cast<double>(random() >> 11) * 0x1p-53 * total;
  for (int64_t i = 0; i < count; ++i) {
    point -= weights[i];
    if (point < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> Generate(const ModelConfig& config, const Weights& weights,
                                              const std::vector<int32_t>& prompt,
                                              const SamplingOptions& options, Device& device,
                                              const std::function<void(int32_t)>& on_token) {
  const int64_t total = static_cast<int64_t>(prompt.size()) + options.max_tokens;
  if (prompt.empty()) return absl::InvalidArgumentError("the prompt has no token");
  if (config.family == ModelFamily::kGpt2 && total > config.positions) {
    return absl::InvalidArgumentError(absl::StrCat("prompt and new tokens make ", total,
                                                   ", the model's position table has ",
                                                   config.positions, ": shorten one of them"));
  }
  constexpr int64_t kPromptRows = 512;  // of the prompt at a time
  absl::StatusOr<std::unique_ptr<Transformer>> model = Transformer::Create(
      config, std::min<int64_t>(kPromptRows, total), /*for_training=*/false, device);
  if (!model.ok()) return model.status();
  const int64_t cache_values = config.layers * total * config.kv_width();
  const DType compute = ComputeTypeOf(device);
  absl::StatusOr<Buffer> cache = Buffer::Allocate(
      device.memory(), 2 * cache_values * SizeOf(compute), "kv cache", Placement::kDevice);
  if (!cache.ok()) return cache.status();
  const auto half = [&](int64_t index) {
    return cache->Tensor(compute, {config.layers, total, config.kv_width()},
                         index * cache_values * SizeOf(compute));
  };
  CachedAttention attention(config, half(0), half(1));
  const int64_t logit_bytes = config.vocab * SizeOf(DType::kF32);
  absl::StatusOr<MirroredBuffer> logits = MirroredBuffer::Allocate(device, logit_bytes, "logits");
  if (!logits.ok()) return logits.status();
  std::mt19937_64 random(options.seed);
  Stream stream = device.CreateStream("generate");

  const auto run = [&](const int32_t* ids, int64_t rows) -> absl::Status {
    std::vector<int32_t> tokens(ids, ids + rows), positions(rows);
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(attention.cached()));
    const TokenBatch batch{
        TensorView::Of(tokens.data(), {rows}), TensorView::Of(positions.data(), {rows}), {}};
    absl::Status status = (*model)->LastLogits(
        batch, attention, weights, logits->OnDevice(DType::kF32, {1, config.vocab}), stream);
    if (!status.ok()) return status;
    logits->ToHost(0, logit_bytes, stream);
    attention.Advance(rows);
    return stream.Synchronize();
  };
  for (int64_t begin = 0; begin < static_cast<int64_t>(prompt.size()); begin += kPromptRows) {
    const int64_t rows =
        std::min<int64_t>(kPromptRows, static_cast<int64_t>(prompt.size()) - begin);
    if (absl::Status status = run(prompt.data() + begin, rows); !status.ok()) return status;
  }
  std::vector<int32_t> tokens;
  while (static_cast<int64_t>(tokens.size()) < options.max_tokens) {
    const int32_t token = Sample(logits->OnHost(DType::kF32, {config.vocab}).data<float>(),
                                 config.vocab, options, random);
    if (token == options.end_of_sequence) break;
    tokens.push_back(token);
    on_token(token);
    if (absl::Status status = run(&token, 1); !status.ok()) return status;
  }
  return tokens;
}

}  // namespace longspan
