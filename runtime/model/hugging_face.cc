#include "runtime/model/hugging_face.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/file_system.h"
#include "nlohmann/json.hpp"
#include "runtime/model/safetensors.h"

namespace longspan {
namespace {

using Json = nlohmann::json;

constexpr char kGpt2Prefix[] = "transformer.";

// Buffers that older files carry beside the weights.
bool IsBuffer(const std::string& name) {
  return absl::EndsWith(name, ".attn.bias") || absl::EndsWith(name, ".attn.masked_bias") ||
         absl::EndsWith(name, ".rotary_emb.inv_freq");
}

absl::Status Unsupported(const std::string& source, const std::string& key, const Json& value) {
  return absl::InvalidArgumentError(
      absl::StrCat(source, ": ", key, " = ", value.dump(), " is not supported"));
}

// The first key whose value, if it is there, is neither null nor `allowed`.
absl::Status CheckValues(const std::string& source, const Json& json,
                         const std::vector<std::pair<const char*, Json>>& allowed) {
  for (const auto& [key, value] : allowed) {
    if (!json.contains(key) || json[key].is_null()) continue;
    const bool listed =
        value.is_array() && std::find(value.begin(), value.end(), json[key]) != value.end();
    if (json[key] != value && !listed) return Unsupported(source, key, json[key]);
  }
  return absl::OkStatus();
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("(", absl::StrJoin(shape, ", "), ")");
}

}  // namespace

std::string HuggingFaceConfig(const ModelConfig& config, int64_t max_length) {
  Json json;
  if (config.family == ModelFamily::kLlama) {
    json = {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"hidden_size", config.width},
            {"intermediate_size", config.ffn},
            {"num_hidden_layers", config.layers},
            {"num_attention_heads", config.heads},
            {"num_key_value_heads", config.kv_heads},
            {"head_dim", config.head_dim()},
            {"max_position_embeddings", max_length},
            {"rms_norm_eps", config.norm_eps},
            {"rope_theta", config.rope_base},
            {"hidden_act", "silu"},
            {"attention_bias", false},
            {"mlp_bias", false}};
    if (config.window > 0) {
      // The same model with a window goes by another name.
      json["architectures"] = {"MistralForCausalLM"};
      json["model_type"] = "mistral";
      json["sliding_window"] = config.window;
      json.erase("attention_bias");
      json.erase("mlp_bias");
    }
  } else {
    json = {{"architectures", {"GPT2LMHeadModel"}},
            {"model_type", "gpt2"},
            {"n_embd", config.width},
            {"n_inner", config.ffn},
            {"n_layer", config.layers},
            {"n_head", config.heads},
            {"n_positions", config.positions},
            {"layer_norm_epsilon", config.norm_eps},
            {"activation_function", "gelu_new"}};
  }
  json["vocab_size"] = config.vocab;
  json["tie_word_embeddings"] = config.tied();
  json["torch_dtype"] = "float32";
  return json.dump(2) + "\n";
}

absl::StatusOr<ModelConfig> ReadHuggingFaceConfig(const std::string& directory) {
  const std::string source = absl::StrCat(directory, "/config.json");
  absl::StatusOr<std::string> text = PosixFileSystem().ReadAll(source);
  if (!text.ok()) return text.status();
  ModelConfig config;
  try {
    const Json json = Json::parse(*text);
    const std::string type = json.at("model_type");
    absl::Status status;
    if (type == "llama" || type == "mistral") {
      status = CheckValues(source, json,
                           {{"hidden_act", "silu"},
                            {"attention_bias", false},
                            {"mlp_bias", false},
                            {"rope_scaling", nullptr}});
      config.family = ModelFamily::kLlama;
      config.width = json.at("hidden_size");
      config.ffn = json.at("intermediate_size");
      config.layers = json.at("num_hidden_layers");
      config.heads = json.at("num_attention_heads");
      config.kv_heads = json.value("num_key_value_heads", config.heads);
      // Newer files have it in an object of its own.
      const Json rope = json.value("rope_parameters", Json::object());
      config.rope_base = json.value("rope_theta", rope.value("rope_theta", 10000.0));
      if (rope.value("rope_type", "default") != "default") {
        status.Update(Unsupported(source, "rope_parameters", rope));
      }
      config.norm_eps = json.value("rms_norm_eps", 1e-6f);
      config.tie_embeddings = json.value("tie_word_embeddings", false);
      if (type == "mistral" && json.contains("sliding_window") &&
          !json["sliding_window"].is_null()) {
        config.window = json["sliding_window"];
      }
      if (config.heads < 1) status.Update(Unsupported(source, "num_attention_heads", config.heads));
      if (status.ok() && json.contains("head_dim") && !json["head_dim"].is_null() &&
          json["head_dim"] != config.head_dim()) {
        status = Unsupported(source, "head_dim", json["head_dim"]);
      }
    } else if (type == "gpt2") {
      status = CheckValues(source, json,
                           {{"activation_function", {"gelu_new", "gelu_pytorch_tanh"}},
                            {"scale_attn_weights", true},
                            {"scale_attn_by_inverse_layer_idx", false},
                            {"tie_word_embeddings", true}});
      config.family = ModelFamily::kGpt2;
      config.width = json.at("n_embd");
      config.layers = json.at("n_layer");
      config.heads = config.kv_heads = json.at("n_head");
      config.positions = json.at("n_positions");
      config.ffn = 4 * config.width;
      if (json.contains("n_inner") && !json["n_inner"].is_null()) config.ffn = json["n_inner"];
      config.norm_eps = json.value("layer_norm_epsilon", 1e-5f);
    } else {
      status = Unsupported(source, "model_type", type);
    }
    if (!status.ok()) return status;
    config.vocab = json.at("vocab_size");
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(source, " does not read: ", error.what()));
  }
  if (absl::Status status = config.Check(); !status.ok()) return status;
  return config;
}

absl::Status ReadHuggingFaceWeights(const std::string& directory, const ModelConfig& config,
                                    const ParameterLayout& layout, TensorView arena) {
  absl::StatusOr<ModelConfig> theirs = ReadHuggingFaceConfig(directory);
  if (!theirs.ok()) return theirs.status();
  if (theirs->family != config.family) {
    return absl::InvalidArgumentError(absl::StrCat(directory, " holds a model of family ",
                                                   Name(theirs->family), ", not ",
                                                   Name(config.family), ": set model.family"));
  }
  // What shapes do not show.
  std::vector<std::string> differences;
  const auto compare = [&](const char* key, double have, double want) {
    if (have != want) differences.push_back(absl::StrCat(key, " = ", have, " (here ", want, ")"));
  };
  compare("model.layers", theirs->layers, config.layers);
  compare("model.heads", theirs->heads, config.heads);
  compare("model.kv_heads", theirs->kv_heads, config.kv_heads);
  if (config.family == ModelFamily::kLlama) {
    compare("model.rope_base", theirs->rope_base, config.rope_base);
    compare("model.tie_embeddings", theirs->tie_embeddings, config.tie_embeddings);
    compare("attention.window", static_cast<double>(theirs->window),
            static_cast<double>(config.window));
  }
  compare("vocabulary", static_cast<double>(theirs->vocab), static_cast<double>(config.vocab));
  if (std::abs(theirs->norm_eps - config.norm_eps) > 1e-3f * config.norm_eps) {
    compare("norm_eps", theirs->norm_eps, config.norm_eps);
  }
  if (!differences.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(directory, " holds another model: ", absl::StrJoin(differences, ", ")));
  }

  absl::StatusOr<std::map<std::string, SafetensorsEntry>> entries = ListSafetensors(directory);
  if (!entries.ok()) return entries.status();
  std::set<std::string> used;
  for (size_t i = 0; i < layout.specs().size(); ++i) {
    const ParameterSpec& spec = layout.specs()[i];
    auto found = entries->find(spec.name);
    // The first GPT-2 files name tensors from inside of the transformer.
    if (found == entries->end() && absl::StartsWith(spec.name, kGpt2Prefix)) {
      found = entries->find(spec.name.substr(sizeof(kGpt2Prefix) - 1));
    }
    if (found == entries->end()) {
      return absl::InvalidArgumentError(absl::StrCat(directory, " has no tensor ", spec.name));
    }
    if (found->second.shape != spec.shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          found->second.path, ": ", spec.name, " is ", ShapeText(found->second.shape), ", but ",
          ShapeText(spec.shape), " is wanted: fit the keys of [model], or data.max_length, to it"));
    }
    used.insert(found->first);
    if (absl::Status status = ReadSafetensor(
            found->second, arena.data<float>() + layout.offset(static_cast<int64_t>(i)));
        !status.ok()) {
      return status;
    }
  }
  for (const auto& [name, entry] : *entries) {
    const bool tied_head = config.tied() && name == "lm_head.weight";
    if (used.count(name) == 0 && !IsBuffer(name) && !tied_head) {
      return absl::InvalidArgumentError(
          absl::StrCat(entry.path, ": ", name, " has no place in this model"));
    }
  }
  return absl::OkStatus();
}

}  // namespace longspan
