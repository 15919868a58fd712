// The public JSON form of a StepPlan.
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "parallel/plan.h"

namespace longspan {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "longspan-plan";
constexpr int64_t kVersion = 1;

// Reads values by path and keeps the first error, so that the code below reads like the format.
class Reader {
 public:
  const absl::Status& status() const { return status_; }

  // The value of `key`, or null with an error.
  const Json& Member(const Json& object, const char* key, const std::string& path) {
    static const Json kNothing;
    if (!object.is_object()) {
      Fail(path.empty() ? "the document" : path, "must be an object");
      return kNothing;
    }
    const auto it = object.find(key);
    if (it != object.end()) return *it;
    Fail(Join(path, key), "is missing");
    return kNothing;
  }

  int64_t Integer(const Json& value, const std::string& path,
                  int64_t low = std::numeric_limits<int64_t>::min(),
                  int64_t high = std::numeric_limits<int64_t>::max()) {
    const bool fits =
        value.is_number_unsigned()
            ? value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
            : value.is_number_integer();
    const int64_t number = fits ? value.get<int64_t>() : 0;
    if (!fits || number < low || number > high) {
      Fail(path, absl::StrCat("must be an integer from ", low, " to ", high));
      return 0;
    }
    return number;
  }

  double Number(const Json& value, const std::string& path) {
    if (value.is_number()) return value.get<double>();
    Fail(path, "must be a number");
    return 0;
  }

  // Calls each(element, path) for every element until an error.
  template <typename Each>
  void Array(const Json& value, const std::string& path, const Each& each) {
    if (!value.is_array()) return Fail(path, "must be an array");
    for (size_t i = 0; i < value.size() && status_.ok(); ++i) {
      each(value[i], absl::StrCat(path, "[", i, "]"));
    }
  }

  void Fail(const std::string& path, const std::string& what) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(absl::StrCat("plan JSON: ", path, " ", what));
    }
  }

  static std::string Join(const std::string& path, const char* key) {
    return path.empty() ? key : absl::StrCat(path, ".", key);
  }

 private:
  absl::Status status_;
};

void ReadSlice(Reader& reader, const Json& json, const std::string& path, SequenceSlice& slice) {
  slice.sequence = reader.Integer(reader.Member(json, "sequence", path), path + ".sequence", 0);
  const Json& group = reader.Member(json, "group", path);
  slice.group = group.is_null() ? -1 : reader.Integer(group, path + ".group", 0);
  reader.Array(reader.Member(json, "ranges", path), path + ".ranges",
               [&](const Json& range, const std::string& at) {
                 if (!range.is_array() || range.size() != 2) {
                   return reader.Fail(at, "must be a pair [begin, end]");
                 }
                 const int64_t begin = reader.Integer(range[0], at, 0);
                 const int64_t end = reader.Integer(range[1], at, begin);
                 slice.ranges.push_back({begin, end});
               });
}

void ReadCertificate(Reader& reader, const Json& json, PlanCertificate& certificate) {
  const std::string path = "certificate";
  const auto number = [&](const Json& object, const std::string& at, const char* key) {
    return reader.Number(reader.Member(object, key, at), Reader::Join(at, key));
  };
  certificate.makespan_seconds = number(json, path, "makespan_seconds");
  certificate.lower_bound_seconds = number(json, path, "lower_bound_seconds");
  certificate.gap = number(json, path, "gap");
  const Json& bounds = reader.Member(json, "bounds", path);
  certificate.area_seconds = number(bounds, "certificate.bounds", "area");
  certificate.longest_seconds = number(bounds, "certificate.bounds", "longest");
  certificate.wide_seconds = number(bounds, "certificate.bounds", "wide");
  certificate.planning_seconds = number(json, path, "planning_seconds");
}

absl::Status CheckVersion(Reader& reader, const Json& json) {
  const Json& format = reader.Member(json, "format", "");
  const int64_t version = reader.Integer(reader.Member(json, "version", ""), "version", 1);
  if (!reader.status().ok()) return reader.status();
  if (!format.is_string() || format.get_ref<const std::string&>() != kFormat) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan JSON: format is ", format.dump(), ", not \"", kFormat, "\""));
  }
  if (version > kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("plan JSON: this is ", kFormat, " version ",
                                                   version, ", this program reads up to version ",
                                                   kVersion, ": use a newer longspan"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ToJson(const StepPlan& plan) {
  Json groups = Json::array();
  for (const SequenceGroup& group : plan.groups) {
    Json& json = groups.emplace_back();
    json = {{"sequence", group.sequence}, {"ranks", group.ranks}};
    if (group.head_parallel != 1) json["head_parallel"] = group.head_parallel;
  }
  Json lists = Json::array();
  for (const std::vector<MicroBatch>& list : plan.micro_batches) {
    Json micro_batches = Json::array();
    for (const MicroBatch& micro_batch : list) {
      Json slices = Json::array();
      for (const SequenceSlice& slice : micro_batch.slices) {
        Json ranges = Json::array();
        for (const TokenRange& range : slice.ranges) {
          ranges.push_back(Json::array({range.begin, range.end}));
        }
        slices.push_back({{"sequence", slice.sequence},
                          {"group", slice.group < 0 ? Json(nullptr) : Json(slice.group)},
                          {"ranges", std::move(ranges)}});
      }
      micro_batches.push_back({{"slices", std::move(slices)}});
    }
    lists.push_back(std::move(micro_batches));
  }
  const PlanCertificate& certificate = plan.certificate;
  const Json json = {{"format", kFormat},
                     {"version", kVersion},
                     {"ranks", plan.ranks},
                     {"micro_batch_tokens", plan.micro_batch_tokens},
                     {"lengths", plan.lengths},
                     {"groups", std::move(groups)},
                     {"micro_batches", std::move(lists)},
                     {"certificate",
                      {{"makespan_seconds", certificate.makespan_seconds},
                       {"lower_bound_seconds", certificate.lower_bound_seconds},
                       {"gap", certificate.gap},
                       {"bounds",
                        {{"area", certificate.area_seconds},
                         {"longest", certificate.longest_seconds},
                         {"wide", certificate.wide_seconds}}},
                       {"planning_seconds", certificate.planning_seconds}}}};
  return json.dump();
}

absl::StatusOr<StepPlan> StepPlanFromJson(const std::string& text) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("plan JSON: ", error.what()));
  }
  Reader reader;
  if (absl::Status status = CheckVersion(reader, json); !status.ok()) return status;
  constexpr int64_t kMaxInt = std::numeric_limits<int>::max();
  StepPlan plan;
  plan.ranks =
      static_cast<int>(reader.Integer(reader.Member(json, "ranks", ""), "ranks", 1, kMaxInt));
  plan.micro_batch_tokens =
      reader.Integer(reader.Member(json, "micro_batch_tokens", ""), "micro_batch_tokens", 2);
  reader.Array(reader.Member(json, "lengths", ""), "lengths",
               [&](const Json& length, const std::string& path) {
                 plan.lengths.push_back(reader.Integer(length, path, 1));
               });
  reader.Array(
      reader.Member(json, "groups", ""), "groups", [&](const Json& group, const std::string& path) {
        SequenceGroup& read = plan.groups.emplace_back();
        read.sequence =
            reader.Integer(reader.Member(group, "sequence", path), path + ".sequence", 0);
        reader.Array(reader.Member(group, "ranks", path), path + ".ranks",
                     [&](const Json& rank, const std::string& at) {
                       read.ranks.push_back(static_cast<int>(reader.Integer(rank, at, 0, kMaxInt)));
                     });
        if (group.is_object() && group.contains("head_parallel")) {
          read.head_parallel = static_cast<int>(
              reader.Integer(group["head_parallel"], path + ".head_parallel", 1, kMaxInt));
        }
      });
  reader.Array(reader.Member(json, "micro_batches", ""), "micro_batches",
               [&](const Json& list, const std::string& path) {
                 std::vector<MicroBatch>& micro_batches = plan.micro_batches.emplace_back();
                 reader.Array(list, path, [&](const Json& micro_batch, const std::string& at) {
                   MicroBatch& read = micro_batches.emplace_back();
                   reader.Array(reader.Member(micro_batch, "slices", at), at + ".slices",
                                [&](const Json& slice, const std::string& where) {
                                  ReadSlice(reader, slice, where, read.slices.emplace_back());
                                });
                 });
               });
  if (json.contains("certificate")) {
    ReadCertificate(reader, json["certificate"], plan.certificate);
  }
  if (!reader.status().ok()) return reader.status();
  return plan;
}

}  // namespace longspan
