#include "runtime/train/run_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace longspan {

using nlohmann::json;

std::string RunState::ToJson() const {
  json sources = json::array();
  for (const DataCursor::Source& source : cursor.sources) {
    sources.push_back({{"epoch", source.epoch}, {"next", source.next}, {"tokens", source.tokens}});
  }
  json values = json::object();
  for (const ConfigEntry& entry : config) values[entry.key] = entry.value;
  json cost_versions = json::array();
  for (const CostVersion& cost : costs) {
    cost_versions.push_back(
        {{"version", cost.version}, {"from_step", cost.from_step}, {"units", cost.units}});
  }
  const json object = {
      {"step", step},
      {"updates", updates},
      {"tokens", tokens},
      {"first_loss", first_loss},
      {"cursor", {{"sequences", cursor.sequences}, {"sources", sources}}},
      {"model",
       {{"family", Name(model.family)},
        {"layers", model.layers},
        {"width", model.width},
        {"heads", model.heads},
        {"kv_heads", model.kv_heads},
        {"ffn", model.ffn},
        {"vocab", model.vocab},
        {"rope_base", model.rope_base},
        {"window", model.window},
        {"tie_embeddings", model.tie_embeddings},
        {"positions", model.positions},
        {"norm_eps", model.norm_eps}}},
      {"data_fingerprint", data_fingerprint},
      {"tokenizer_kind", tokenizer_kind},
      {"config", values},
      {"schedule", json::parse(schedule, nullptr, false)},
      {"cost_versions", cost_versions},
  };
  return object.dump();
}

absl::StatusOr<RunState> RunStateFromJson(const std::string& text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  RunState state;
  try {
    state.step = object.at("step");
    state.updates = object.at("updates");
    state.tokens = object.at("tokens");
    state.first_loss = object.at("first_loss");
    state.cursor.sequences = object.at("cursor").at("sequences");
    for (const json& source : object.at("cursor").at("sources")) {
      state.cursor.sources.push_back({source.at("epoch"), source.at("next"), source.at("tokens")});
    }
    const json& model = object.at("model");
    absl::StatusOr<ModelFamily> family = ModelFamilyFromName(model.at("family"));
    if (!family.ok()) return family.status();
    state.model.family = *family;
    state.model.layers = model.at("layers");
    state.model.width = model.at("width");
    state.model.heads = model.at("heads");
    state.model.kv_heads = model.at("kv_heads");
    state.model.ffn = model.at("ffn");
    state.model.vocab = model.at("vocab");
    state.model.rope_base = model.at("rope_base");
    state.model.window = model.value("window", int64_t{0});
    state.model.tie_embeddings = model.at("tie_embeddings");
    state.model.positions = model.at("positions");
    state.model.norm_eps = model.at("norm_eps");
    state.data_fingerprint = object.at("data_fingerprint");
    state.tokenizer_kind = object.at("tokenizer_kind");
    for (const auto& [key, value] : object.at("config").items()) {
      state.config.push_back({key, value.get<std::string>(), "checkpoint", false});
    }
    state.schedule = object.at("schedule").dump();
    // Runs of older versions have none.
    for (const json& cost : object.value("cost_versions", json::array())) {
      state.costs.push_back({cost.at("version"), cost.at("from_step"), cost.at("units")});
    }
  } catch (const json::exception& error) {
    return absl::DataLossError(
        absl::StrCat("the checkpoint's run state does not read: ", error.what()));
  }
  return state;
}

absl::StatusOr<std::vector<std::string>> CompareForResume(const RunState& saved,
                                                          const std::vector<ConfigEntry>& config,
                                                          const std::string& data_fingerprint) {
  std::vector<std::string> refused, changed;
  for (const ConfigEntry& now : config) {
    const auto then = std::find_if(saved.config.begin(), saved.config.end(),
                                   [&](const ConfigEntry& entry) { return entry.key == now.key; });
    // A key that the saving version did not have yet holds its default there.
    if (then == saved.config.end() || then->value == now.value) continue;
    const std::string line = absl::StrCat(now.key, " was ", then->value, ", is now ", now.value);
    (now.fixed ? refused : changed).push_back(line);
  }
  if (saved.data_fingerprint != data_fingerprint) {
    refused.push_back("the token data sets differ from those that the run was started with");
  }
  if (!refused.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot resume: ", absl::StrJoin(refused, "; "),
                     "; set them back, or start another run with --set run.name=NAME"));
  }
  return changed;
}

}  // namespace longspan
