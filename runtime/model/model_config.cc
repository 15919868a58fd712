#include "runtime/model/model_config.h"

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

ParameterSpec Matrix(std::string name, int64_t rows, int64_t columns, std::string fuse = "") {
  return {std::move(name), {rows, columns}, /*decay=*/true, std::move(fuse)};
}

ParameterSpec Vector(std::string name, int64_t elements) {
  return {std::move(name), {elements}, /*decay=*/false, ""};
}

void AddLlamaLayer(const ModelConfig& c, int layer, std::vector<ParameterSpec>& specs) {
  const std::string p = absl::StrCat("model.layers.", layer, ".");
  const std::string ffn = p + "gate_up", qkv = p + "qkv";
  specs.push_back(Matrix(p + "mlp.down_proj.weight", c.width, c.ffn));
  specs.push_back(Matrix(p + "mlp.gate_proj.weight", c.ffn, c.width, ffn));
  specs.push_back(Matrix(p + "mlp.up_proj.weight", c.ffn, c.width, ffn));
  specs.push_back(Vector(p + "post_attention_layernorm.weight", c.width));
  specs.push_back(Matrix(p + "self_attn.o_proj.weight", c.width, c.width));
  specs.push_back(Matrix(p + "self_attn.q_proj.weight", c.width, c.width, qkv));
  specs.push_back(Matrix(p + "self_attn.k_proj.weight", c.kv_width(), c.width, qkv));
  specs.push_back(Matrix(p + "self_attn.v_proj.weight", c.kv_width(), c.width, qkv));
  specs.push_back(Vector(p + "input_layernorm.weight", c.width));
}

void AddGpt2Layer(const ModelConfig& c, int layer, std::vector<ParameterSpec>& specs) {
  const std::string p = absl::StrCat("transformer.h.", layer, ".");
  specs.push_back(Matrix(p + "mlp.c_proj.weight", c.ffn, c.width));
  specs.push_back(Vector(p + "mlp.c_proj.bias", c.width));
  specs.push_back(Matrix(p + "mlp.c_fc.weight", c.width, c.ffn));
  specs.push_back(Vector(p + "mlp.c_fc.bias", c.ffn));
  specs.push_back(Vector(p + "ln_2.weight", c.width));
  specs.push_back(Vector(p + "ln_2.bias", c.width));
  specs.push_back(Matrix(p + "attn.c_proj.weight", c.width, c.width));
  specs.push_back(Vector(p + "attn.c_proj.bias", c.width));
  specs.push_back(Matrix(p + "attn.c_attn.weight", c.width, 3 * c.width));
  specs.push_back(Vector(p + "attn.c_attn.bias", 3 * c.width));
  specs.push_back(Vector(p + "ln_1.weight", c.width));
  specs.push_back(Vector(p + "ln_1.bias", c.width));
}

}  // namespace

absl::StatusOr<ModelFamily> ModelFamilyFromName(const std::string& name) {
  if (name == "llama") return ModelFamily::kLlama;
  if (name == "gpt2") return ModelFamily::kGpt2;
  return absl::InvalidArgumentError(
      absl::StrCat("model.family = \"", name, "\": known families are llama and gpt2"));
}

const char* Name(ModelFamily family) { return family == ModelFamily::kLlama ? "llama" : "gpt2"; }

absl::Status ModelConfig::Check() const {
  const auto positive = [](const char* key, int64_t value) {
    return value >= 1 ? absl::OkStatus()
                      : absl::InvalidArgumentError(
                            absl::StrCat("model.", key, " = ", value, ": must be at least 1"));
  };
  for (const auto& [key, value] :
       std::initializer_list<std::pair<const char*, int64_t>>{{"layers", layers},
                                                              {"width", width},
                                                              {"heads", heads},
                                                              {"kv_heads", kv_heads},
                                                              {"ffn", ffn},
                                                              {"vocab", vocab}}) {
    if (absl::Status status = positive(key, value); !status.ok()) return status;
  }
  if (window < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("attention.window = ", window, ": must be a number of tokens, or 0 for none"));
  }
  if (width % heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.width = ", width, " is not a multiple of model.heads = ", heads));
  }
  if (heads % kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.heads = ", heads, " is not a multiple of model.kv_heads = ", kv_heads));
  }
  if (family == ModelFamily::kLlama && head_dim() % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("model.width / model.heads = ", head_dim(),
                                                   ": rotary embeddings need an even head size"));
  }
  if (family == ModelFamily::kGpt2 && kv_heads != heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.kv_heads = ", kv_heads,
                     ": the gpt2 family has as many KV heads as heads (", heads, ")"));
  }
  if (family == ModelFamily::kGpt2 && positions < 1) {
    return absl::InvalidArgumentError(
        "the gpt2 family needs data.max_length as the size of its position table");
  }
  return absl::OkStatus();
}

int64_t ModelConfig::MatmulParameters() const {
  return layers * (width * qkv_width() + width * width + width * ffn_in_width() + ffn * width) +
         vocab * width;
}

double ModelConfig::TrainingFlops(int64_t length) const {
  // Twice the pairs of (query, key): the whole square without a window, as is usual.
  const double n = static_cast<double>(length), hidden = static_cast<double>(length - window);
  const double pairs = window == 0 || window >= length ? n * n : n * n - hidden * hidden;
  return 6.0 * n * static_cast<double>(MatmulParameters()) +
         6.0 * static_cast<double>(layers) * static_cast<double>(width) * pairs;
}

std::vector<ParameterSpec> ParameterSpecs(const ModelConfig& config) {
  std::vector<ParameterSpec> specs;
  if (config.family == ModelFamily::kLlama) {
    if (!config.tied()) specs.push_back(Matrix("lm_head.weight", config.vocab, config.width));
    specs.push_back(Vector("model.norm.weight", config.width));
    for (int layer = config.layers - 1; layer >= 0; --layer) AddLlamaLayer(config, layer, specs);
    specs.push_back(Matrix("model.embed_tokens.weight", config.vocab, config.width));
  } else {
    specs.push_back(Vector("transformer.ln_f.weight", config.width));
    specs.push_back(Vector("transformer.ln_f.bias", config.width));
    for (int layer = config.layers - 1; layer >= 0; --layer) AddGpt2Layer(config, layer, specs);
    specs.push_back(Matrix("transformer.wpe.weight", config.positions, config.width));
    specs.push_back(Matrix("transformer.wte.weight", config.vocab, config.width));
  }
  return specs;
}

}  // namespace longspan
