// The plan of a schedule as JSON, as checkpoints store it.
#include <charconv>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "optim/schedule.h"

namespace longspan {
namespace {

using nlohmann::json;

// The shortest text that reads back to the same bits.
std::string Text(double value) {
  char text[32];
  return std::string(text, std::to_chars(text, std::end(text), value).ptr);
}

std::string Text(const std::vector<double>& values) {
  return absl::StrCat(
      "[",
      absl::StrJoin(values, ", ",
                    [](std::string* out, double value) { absl::StrAppend(out, Text(value)); }),
      "]");
}

// What a kind has of its own; others have the defaults.
std::string OwnParameters(const ScheduleConfig& config) {
  const ProfileParameters& p = config.profile;
  if (config.kind == "rex") return absl::StrCat(", \"rex_b\": ", Text(p.rex_b));
  if (config.kind == "wsd") {
    return absl::StrCat(", \"cooldown\": ", Text(p.cooldown), ", \"cooldown_shape\": \"",
                        p.cooldown_shape, "\"");
  }
  if (config.kind == "polynomial") return absl::StrCat(", \"power\": ", Text(p.power));
  if (config.kind == "exponential") return absl::StrCat(", \"decay\": ", Text(p.decay));
  if (config.kind == "step") {
    return absl::StrCat(", \"milestones\": ", Text(p.milestones),
                        ", \"milestone_factor\": ", Text(p.milestone_factor));
  }
  return "";
}

std::string SamplingText(const SamplingRate& sampling) {
  if (!sampling.points.empty()) return absl::StrCat("{\"points\": ", Text(sampling.points), "}");
  if (sampling.share > 0) return absl::StrCat("{\"share\": ", Text(sampling.share), "}");
  return absl::StrCat("{\"every\": ", sampling.every, "}");
}

ScheduleConfig ConfigFrom(const json& object) {
  ScheduleConfig config;
  config.kind = object.at("kind");
  config.peak = object.at("peak");
  config.warmup = object.at("warmup_steps");
  config.floor = object.at("floor");
  config.steps = object.at("steps");
  ProfileParameters& p = config.profile;
  p.rex_b = object.value("rex_b", p.rex_b);
  p.cooldown = object.value("cooldown", p.cooldown);
  p.cooldown_shape = object.value("cooldown_shape", p.cooldown_shape);
  p.power = object.value("power", p.power);
  p.decay = object.value("decay", p.decay);
  p.milestones = object.value("milestones", p.milestones);
  p.milestone_factor = object.value("milestone_factor", p.milestone_factor);
  if (object.contains("sampling")) {
    const json& sampling = object.at("sampling");
    config.sampling.every = sampling.value("every", config.sampling.every);
    config.sampling.share = sampling.value("share", config.sampling.share);
    config.sampling.points = sampling.value("points", config.sampling.points);
  }
  config.values = object.value("values", config.values);
  config.note = object.value("note", config.note);
  return config;
}

}  // namespace

std::string Schedule::ToJson() const {
  std::string text =
      absl::StrCat("{\"kind\": \"", config_.kind, "\", \"peak\": ", Text(config_.peak),
                   ", \"warmup_steps\": ", warmup_steps_, ", \"floor\": ", Text(config_.floor),
                   ", \"steps\": ", config_.steps, OwnParameters(config_));
  if (!(config_.sampling == SamplingRate()))
    absl::StrAppend(&text, ", \"sampling\": ", SamplingText(config_.sampling));
  if (!config_.values.empty()) absl::StrAppend(&text, ", \"values\": ", Text(config_.values));
  if (!config_.note.empty()) absl::StrAppend(&text, ", \"note\": ", json(config_.note).dump());
  return text + "}";
}

absl::StatusOr<Schedule> Schedule::FromJson(const std::string& text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  ScheduleConfig config;
  try {
    config = ConfigFrom(object);
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("the stored schedule does not read: ", error.what()));
  }
  absl::StatusOr<Schedule> schedule = Create(config);
  if (!schedule.ok()) {
    return absl::DataLossError(
        absl::StrCat("the stored schedule does not read; was it made by a newer longspan? ",
                     std::string(schedule.status().message())));
  }
  return schedule;
}

}  // namespace longspan
