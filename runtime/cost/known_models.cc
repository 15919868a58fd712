#include "runtime/cost/known_models.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace longspan {
namespace {

struct Row {
  const char* name;
  ModelFamily family;
  int layers;
  int64_t width;
  int heads, kv_heads;
  int64_t ffn;  // of the active experts together
  int64_t vocab;
  bool tied = false;
};

constexpr Row kModels[] = {
    // LLaMA (arXiv 2302.13971), table 2; ffn and vocabulary from the released configurations.
    {"llama-7b", ModelFamily::kLlama, 32, 4096, 32, 32, 11008, 32000},
    {"llama-13b", ModelFamily::kLlama, 40, 5120, 40, 40, 13824, 32000},
    // Llama 2 (arXiv 2307.09288): grouped queries, 8 KV heads; huggingface.co/meta-llama.
    {"llama-70b", ModelFamily::kLlama, 80, 8192, 64, 8, 28672, 32000},
    // Llama 3 (arXiv 2407.21783), table 3.
    {"llama3-8b", ModelFamily::kLlama, 32, 4096, 32, 8, 14336, 128256},
    // Llama 3.2, huggingface.co/meta-llama, config.json.
    {"llama3.2-1b", ModelFamily::kLlama, 16, 2048, 32, 8, 8192, 128256, true},
    // huggingface.co/mistralai/Mixtral-8x22B-v0.1, config.json: 2 of 8 experts of 16384 a token, so
    // 39e9 active parameters of 141e9.
    {"mistral-8x22b", ModelFamily::kLlama, 56, 6144, 48, 8, 2 * 16384, 32000},
    // Qwen2.5 (arXiv 2412.15115); huggingface.co/Qwen, config.json.
    {"qwen2.5-0.5b", ModelFamily::kLlama, 24, 896, 14, 2, 4864, 151936, true},
    {"qwen2.5-1.5b", ModelFamily::kLlama, 28, 1536, 12, 2, 8960, 151936, true},
    {"qwen2.5-7b", ModelFamily::kLlama, 28, 3584, 28, 4, 18944, 152064},
    // GPT-2: "Language Models are Unsupervised Multitask Learners", table 2; ffn = 4 * width.
    {"gpt2-124m", ModelFamily::kGpt2, 12, 768, 12, 12, 3072, 50257},
    {"gpt2-1.5b", ModelFamily::kGpt2, 48, 1600, 25, 25, 6400, 50257},
};

}  // namespace

absl::StatusOr<ModelConfig> ModelByName(const std::string& name) {
  for (const Row& row : kModels) {
    if (name != row.name) continue;
    ModelConfig model;
    model.family = row.family;
    model.layers = row.layers;
    model.width = row.width;
    model.heads = row.heads;
    model.kv_heads = row.kv_heads;
    model.ffn = row.ffn;
    model.vocab = row.vocab;
    model.tie_embeddings = row.tied;
    return model;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown model \"", name, "\"; there is: ", absl::StrJoin(KnownModelNames(), ", ")));
}

std::vector<std::string> KnownModelNames() {
  std::vector<std::string> names;
  for (const Row& row : kModels) names.push_back(row.name);
  return names;
}

}  // namespace longspan
