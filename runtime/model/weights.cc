#include "runtime/model/weights.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/elementwise.h"

namespace longspan {
namespace {

// SplitMix64's finalizer: a bijection that passes the usual tests as a counter-based generator.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

uint64_t HashOfName(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ULL;
  return hash;
}

// A standard normal number for (key, index) by Box and Muller.
float NormalAt(uint64_t key, uint64_t index) {
  const uint64_t bits = Mix(key ^ Mix(index));
  const double u = (static_cast<double>(bits >> 32) + 1.0) * 0x1p-32;
  const double v = static_cast<double>(bits & 0xffffffffu) * 0x1p-32;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

// Looks tensors up by name and makes views of them.
class Views {
 public:
  Views(const ParameterLayout& layout, TensorView arena) : layout_(layout), arena_(arena) {}

  TensorView Get(const std::string& name) const {
    const int64_t tensor = layout_.Find(name);
    LONGSPAN_CHECK(tensor >= 0, "the layout lacks a tensor of the model");
    const ParameterSpec& spec = layout_.specs()[tensor];
    const int64_t begin = layout_.offset(tensor);
    const TensorView flat = arena_.Slice(0, begin, begin + spec.elements());
    return spec.shape.size() == 2 ? flat.Reshape({spec.shape[0], spec.shape[1]}) : flat;
  }

  // Consecutive (out, in) matrices as one.
  TensorView Fused(const std::string& first, int64_t rows, int64_t columns) const {
    const int64_t begin = layout_.offset(layout_.Find(first));
    return arena_.Slice(0, begin, begin + rows * columns).Reshape({rows, columns});
  }

 private:
  const ParameterLayout& layout_;
  TensorView arena_;
};

LayerWeights LlamaLayer(const ModelConfig& c, const Views& views, int layer) {
  const std::string p = absl::StrCat("model.layers.", layer, ".");
  LayerWeights w;
  w.attention_norm.weight = views.Get(p + "input_layernorm.weight");
  w.qkv.weight = views.Fused(p + "self_attn.q_proj.weight", c.qkv_width(), c.width);
  w.out.weight = views.Get(p + "self_attn.o_proj.weight");
  w.ffn_norm.weight = views.Get(p + "post_attention_layernorm.weight");
  w.ffn_in.weight = views.Fused(p + "mlp.gate_proj.weight", 2 * c.ffn, c.width);
  w.ffn_out.weight = views.Get(p + "mlp.down_proj.weight");
  return w;
}

LayerWeights Gpt2Layer(const Views& views, int layer) {
  const std::string p = absl::StrCat("transformer.h.", layer, ".");
  const auto linear = [&](const char* name) {
    return LinearWeights{views.Get(absl::StrCat(p, name, ".weight")),
                         views.Get(absl::StrCat(p, name, ".bias")),
                         /*input_major=*/true};
  };
  const auto norm = [&](const char* name) {
    return NormWeights{views.Get(absl::StrCat(p, name, ".weight")),
                       views.Get(absl::StrCat(p, name, ".bias"))};
  };
  return {norm("ln_1"), linear("attn.c_attn"), linear("attn.c_proj"),
          norm("ln_2"), linear("mlp.c_fc"),    linear("mlp.c_proj")};
}

}  // namespace

Weights WeightsIn(const ModelConfig& config, const ParameterLayout& layout, TensorView arena) {
  const Views views(layout, arena);
  Weights weights;
  const bool llama = config.family == ModelFamily::kLlama;
  for (int layer = 0; layer < config.layers; ++layer) {
    weights.layers.push_back(llama ? LlamaLayer(config, views, layer) : Gpt2Layer(views, layer));
  }
  if (llama) {
    weights.embedding = views.Get("model.embed_tokens.weight");
    weights.final_norm.weight = views.Get("model.norm.weight");
    weights.head = config.tied() ? weights.embedding : views.Get("lm_head.weight");
  } else {
    weights.embedding = views.Get("transformer.wte.weight");
    weights.positions = views.Get("transformer.wpe.weight");
    weights.final_norm = {views.Get("transformer.ln_f.weight"), views.Get("transformer.ln_f.bias")};
    weights.head = weights.embedding;
  }
  return weights;
}

DType ComputeTypeOf(DeviceKind kind) {
  return kind == DeviceKind::kCpu ? DType::kF32 : DType::kBF16;
}

void InitializeWeights(const ModelConfig& config, const ParameterLayout& layout, uint64_t seed,
                       TensorView arena, ThreadPool& threads) {
  const float residual_deviation = 0.02f / std::sqrt(2.0f * static_cast<float>(config.layers));
  float* values = arena.data<float>();
  std::fill(values, values + arena.elements(), 0.0f);
  for (size_t tensor = 0; tensor < layout.specs().size(); ++tensor) {
    const ParameterSpec& spec = layout.specs()[tensor];
    float* begin = values + layout.offset(static_cast<int64_t>(tensor));
    const int64_t elements = spec.elements();
    if (spec.shape.size() < 2) {
      std::fill(begin, begin + elements, absl::EndsWith(spec.name, ".bias") ? 0.0f : 1.0f);
      continue;
    }
    const bool residual = absl::EndsWith(spec.name, "o_proj.weight") ||
                          absl::EndsWith(spec.name, "down_proj.weight") ||
                          absl::EndsWith(spec.name, "c_proj.weight");
    const float deviation = residual ? residual_deviation : 0.02f;
    const uint64_t key = Mix(seed ^ HashOfName(spec.name));
    constexpr int64_t kTask = 1 << 16;
    threads.ParallelFor((elements + kTask - 1) / kTask, [=](int64_t task) {
      const int64_t end = std::min(elements, (task + 1) * kTask);
      for (int64_t i = task * kTask; i < end; ++i)
        begin[i] = deviation * NormalAt(key, static_cast<uint64_t>(i));
    });
  }
}

absl::StatusOr<Buffer> UploadWeights(TensorView arena, Stream& stream) {
  constexpr int64_t kChunk = int64_t{16} << 20;  // elements
  Device& device = stream.device();
  const DType dtype = ComputeTypeOf(device);
  const int64_t elements = arena.elements();
  absl::StatusOr<Buffer> weights =
      Buffer::Allocate(device.memory(), elements * SizeOf(dtype), "parameters", Placement::kDevice);
  if (!weights.ok()) return weights.status();
  absl::StatusOr<Buffer> chunk =
      Buffer::Allocate(device.memory(), std::min(kChunk, elements) * SizeOf(DType::kF32),
                       "parameters", Placement::kDevice);
  if (!chunk.ok()) return chunk.status();
  const TensorView all = weights->Tensor(dtype, {elements});
  for (int64_t begin = 0; begin < elements; begin += kChunk) {
    const int64_t end = std::min(elements, begin + kChunk);
    const TensorView from = arena.Slice(0, begin, end);
    const TensorView wide = chunk->Tensor(DType::kF32, {end - begin});
    stream.CopyBytes(from.raw(), wide.raw(), from.bytes());
    Convert(wide, all.Slice(0, begin, end), stream);
  }
  if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
  return weights;
}

}  // namespace longspan
