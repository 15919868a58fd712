#include "launch/config_values.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "parallel/integer_cost.h"

namespace longspan {
namespace {

absl::Status WrongType(const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("needs ", wanted));
}

}  // namespace

absl::Status Parse(const toml::node& node, std::string* out) {
  const auto value = node.value_exact<std::string>();
  if (!value) return WrongType("a text in quotes");
  *out = *value;
  return absl::OkStatus();
}

std::string Format(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      absl::StrAppend(&text, "\\", std::string(1, c));
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppend(&text, absl::StrFormat("\\u%04X", static_cast<unsigned>(c)));
    } else {
      text += c;
    }
  }
  return text + "\"";
}

absl::Status Parse(const toml::node& node, int64_t* out) {
  const auto value = node.value_exact<int64_t>();
  if (!value) return WrongType("a whole number");
  *out = *value;
  return absl::OkStatus();
}

std::string Format(int64_t value) { return absl::StrCat(value); }

absl::Status Parse(const toml::node& node, double* out) {
  const auto value = node.value<double>();
  if (!value || node.is_boolean() || !std::isfinite(*value)) return WrongType("a number");
  *out = *value;
  return absl::OkStatus();
}

std::string Format(double value) {
  // The shortest text that reads back as the same number; TOML wants a point or an exponent in it.
  std::string text;
  for (int digits = 1; digits <= 17; ++digits) {
    text = absl::StrFormat("%.*g", digits, value);
    double back = 0;
    if (absl::SimpleAtod(text, &back) && back == value) break;
  }
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

absl::Status Parse(const toml::node& node, bool* out) {
  const auto value = node.value_exact<bool>();
  if (!value) return WrongType("true or false");
  *out = *value;
  return absl::OkStatus();
}

std::string Format(bool value) { return value ? "true" : "false"; }

absl::Status Parse(const toml::node& node, std::array<double, 2>* out) {
  const toml::array* array = node.as_array();
  if (array == nullptr || array->size() != 2) return WrongType("two numbers, such as [0.9, 0.95]");
  for (size_t i = 0; i < 2; ++i) {
    if (absl::Status status = Parse(*array->get(i), &(*out)[i]); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string Format(const std::array<double, 2>& value) {
  return absl::StrCat("[", Format(value[0]), ", ", Format(value[1]), "]");
}

absl::Status Parse(const toml::node& node, ValidationSource* out) {
  if (node.is_string()) {
    *out = {0.0, *node.value<std::string>()};
    return absl::OkStatus();
  }
  double share = 0;
  if (!Parse(node, &share).ok() || share < 0 || share >= 1)
    return WrongType("a share from 0 to 1, or a path");
  *out = {share, ""};
  return absl::OkStatus();
}

std::string Format(const ValidationSource& value) {
  return value.path.empty() ? Format(value.share) : Format(value.path);
}

absl::Status Parse(const toml::node& node, SaveInterval* out) {
  if (const auto steps = node.value_exact<int64_t>(); steps && *steps >= 0) {
    *out = {*steps, 0};
    return absl::OkStatus();
  }
  const auto text = node.value_exact<std::string>();
  if (text == "auto") {
    *out = {0, 0, true};
    return absl::OkStatus();
  }
  double seconds = 0;
  if (text && absl::EndsWith(*text, "s") &&
      absl::SimpleAtod(text->substr(0, text->size() - 1), &seconds) && seconds > 0) {
    *out = {0, seconds};
    return absl::OkStatus();
  }
  return WrongType("a number of updates, a time such as \"30s\", or \"auto\"");
}

std::string Format(const SaveInterval& value) {
  if (value.automatic) return "\"auto\"";
  if (value.steps > 0 || value.off()) return absl::StrCat(value.steps);
  return absl::StrCat("\"", value.seconds, "s\"");
}

absl::Status Parse(const toml::node& node, HeadLimit* out) {
  const auto ranks = node.value_exact<int64_t>();
  if (ranks && *ranks >= 1 && *ranks <= kMaxHeads) {
    *out = {*ranks};
    return absl::OkStatus();
  }
  if (node.value_exact<std::string>() != "auto")
    return WrongType("\"auto\", or the most ranks that may split heads: 1 for none, 2 and more");
  *out = {};
  return absl::OkStatus();
}

std::string Format(const HeadLimit& value) {
  return value.automatic() ? "\"auto\"" : absl::StrCat(value.ranks);
}

absl::Status Parse(const toml::node& node, std::vector<double>* out) {
  const toml::array* array = node.as_array();
  if (array == nullptr) return WrongType("a list of numbers, such as [0.5, 0.75]");
  out->assign(array->size(), 0);
  for (size_t i = 0; i < array->size(); ++i) {
    if (absl::Status status = Parse(*array->get(i), &(*out)[i]); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string Format(const std::vector<double>& value) {
  return absl::StrCat(
      "[",
      absl::StrJoin(value, ", ",
                    [](std::string* out, double number) { absl::StrAppend(out, Format(number)); }),
      "]");
}

absl::Status Parse(const toml::node& node, SamplingRate* out) {
  SamplingRate sampling;
  double percent = 0;
  const auto text = node.value_exact<std::string>();
  if (const auto every = node.value_exact<int64_t>(); every) {
    sampling.every = *every;
  } else if (text && absl::EndsWith(*text, "%") &&
             absl::SimpleAtod(text->substr(0, text->size() - 1), &percent) && percent > 0) {
    sampling.share = percent / 100;
  } else if (!Parse(node, &sampling.points).ok() || sampling.points.empty()) {
    return WrongType("a number of updates, \"5%\" of the steps, or points such as [0.5, 0.75]");
  }
  *out = std::move(sampling);
  return absl::OkStatus();
}

std::string Format(const SamplingRate& value) {
  if (!value.points.empty()) return Format(value.points);
  if (value.share > 0) return absl::StrCat("\"", Format(value.share * 100), "%\"");
  return absl::StrCat(value.every);
}

absl::Status Parse(const toml::node& node, std::vector<DataSource>* out) {
  const char* const kWanted = "a list such as [{ path = \"data/corpus.h5\", weight = 1.0 }]";
  out->clear();
  if (node.is_string()) {  // a single path is enough on the command line
    out->push_back({*node.value<std::string>(), 1.0});
    return absl::OkStatus();
  }
  const toml::array* array = node.as_array();
  if (array == nullptr) return WrongType(kWanted);
  for (const toml::node& element : *array) {
    const toml::table* table = element.as_table();
    if (table == nullptr) return WrongType(kWanted);
    DataSource source;
    for (const auto& [key, value] : *table) {
      absl::Status status;
      if (key.str() == "path")
        status = Parse(value, &source.path);
      else if (key.str() == "weight")
        status = Parse(value, &source.weight);
      else
        status = absl::InvalidArgumentError(absl::StrCat("has no entry \"", std::string(key.str()),
                                                         "\"; entries are path and weight"));
      if (!status.ok()) return status;
    }
    if (source.path.empty()) return WrongType(kWanted);
    if (!(source.weight > 0)) return absl::InvalidArgumentError("needs weights above 0");
    out->push_back(source);
  }
  return absl::OkStatus();
}

std::string Format(const std::vector<DataSource>& value) {
  std::vector<std::string> parts;
  for (const DataSource& source : value) {
    parts.push_back(
        absl::StrCat("{ path = ", Format(source.path), ", weight = ", Format(source.weight), " }"));
  }
  return absl::StrCat("[", absl::StrJoin(parts, ", "), "]");
}

}  // namespace longspan
