// The public JSON form of a CostModel.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "parallel/cost_model.h"
#include "parallel/integer_cost.h"

namespace longspan {
namespace {

using Json = nlohmann::ordered_json;

constexpr struct {
  const char* key;
  double CostModel::*value;
  double most;
} kCoefficients[] = {
    {"attention_seconds_per_pair", &CostModel::attention_seconds_per_pair, kMaxPairSeconds},
    {"linear_seconds_per_token", &CostModel::linear_seconds_per_token, kMaxCoefficientSeconds},
    {"ring_seconds_per_token", &CostModel::ring_seconds_per_token, kMaxCoefficientSeconds},
    {"ring_step_seconds", &CostModel::ring_step_seconds, kMaxCoefficientSeconds},
    {"micro_batch_seconds", &CostModel::micro_batch_seconds, kMaxCoefficientSeconds},
};
constexpr char kAttentionWindow[] = "attention_window";
constexpr char kRankSpeeds[] = "rank_speeds";

// The number, or what is wrong with it: "is missing", ...
absl::StatusOr<double> NumberIn(const Json& value, double least, double most) {
  if (!value.is_number()) {
    return absl::InvalidArgumentError(absl::StrCat("must be a number, not ", value.type_name()));
  }
  const double number = value.get<double>();
  if (!(number >= least && number <= most)) {
    return absl::InvalidArgumentError(
        absl::StrCat("is ", number, "; it must lie between ", least, " and ", most));
  }
  return number;
}

}  // namespace

std::string ToJson(const CostModel& cost) {
  Json json = Json::object();
  for (const auto& coefficient : kCoefficients) json[coefficient.key] = cost.*coefficient.value;
  if (cost.attention_window != 0) json[kAttentionWindow] = cost.attention_window;
  if (!cost.rank_speeds.empty()) json[kRankSpeeds] = cost.rank_speeds;
  return json.dump();
}

absl::StatusOr<CostModel> CostModelFromJson(const std::string& text, const std::string& source) {
  const auto error = [&source](const std::string& key, const absl::Status& why) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": ", key, " ", std::string(why.message())));
  };
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& exception) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": not a cost model in JSON: ", exception.what()));
  }
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": a cost model is a JSON object, not ", json.type_name()));
  }
  CostModel cost;
  for (const auto& coefficient : kCoefficients) {
    const auto value = json.find(coefficient.key);
    if (value == json.end()) {
      return error(coefficient.key, absl::InvalidArgumentError("is missing"));
    }
    const absl::StatusOr<double> number = NumberIn(*value, 0, coefficient.most);
    if (!number.ok()) return error(coefficient.key, number.status());
    cost.*coefficient.value = *number;
  }
  if (const auto window = json.find(kAttentionWindow); window != json.end()) {
    const absl::StatusOr<double> number =
        NumberIn(*window, 0, static_cast<double>(kMaxBatchTokens));
    if (!number.ok()) return error(kAttentionWindow, number.status());
    cost.attention_window = static_cast<int64_t>(*number);
  }
  const auto speeds = json.find(kRankSpeeds);
  if (speeds == json.end()) return cost;
  if (!speeds->is_array()) {
    return error(kRankSpeeds, absl::InvalidArgumentError("must be an array, one speed a rank"));
  }
  for (size_t rank = 0; rank < speeds->size(); ++rank) {
    const absl::StatusOr<double> speed = NumberIn((*speeds)[rank], kMinRankSpeed, kMaxRankSpeed);
    if (!speed.ok()) return error(absl::StrCat(kRankSpeeds, "[", rank, "]"), speed.status());
    cost.rank_speeds.push_back(*speed);
  }
  return cost;
}

}  // namespace longspan
