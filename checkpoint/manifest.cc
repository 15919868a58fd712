#include "checkpoint/manifest.h"

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checksum.h"

namespace longspan {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kManifestFormat[] = "longspan-checkpoint";
constexpr char kCommitFormat[] = "longspan-commit";
// What precedes the CRC in a commit record, and the bytes from there to the end of the file.
constexpr char kCommitCrcKey[] = ",\"crc32c\":\"";
constexpr size_t kCommitTailBytes = sizeof(kCommitCrcKey) - 1 + 8 + 3;

absl::StatusOr<DType> DTypeFromName(const std::string& name) {
  for (DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kI32, DType::kI64, DType::kU8,
                      DType::kU16, DType::kU32, DType::kU64}) {
    if (name == Name(dtype)) return dtype;
  }
  return absl::DataLossError("unknown dtype '" + name + "'");
}

// The functions below read JSON with nlohmann's throwing accessors; their callers catch.

uint64_t HexValue(const Json& json) {
  const std::string text = json.get<std::string>();
  if (text.size() != 16 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw std::invalid_argument("'" + text + "' is not 16 hexadecimal digits");
  }
  return std::stoull(text, nullptr, 16);
}

int64_t Count(const Json& json) {
  if (!json.is_number_integer()) throw std::invalid_argument("not an integer: " + json.dump());
  const int64_t value = json.get<int64_t>();
  if (value < 0) throw std::invalid_argument("negative: " + std::to_string(value));
  return value;
}

Json TensorJson(const ManifestTensor& tensor) {
  return {{"group", tensor.group},
          {"tensor", tensor.tensor},
          {"dtype", Name(tensor.dtype)},
          {"shape", tensor.shape},
          {"crc64", Hex64(tensor.crc64)}};
}

ManifestTensor TensorFromJson(const Json& json) {
  ManifestTensor tensor;
  tensor.group = json.at("group").get<std::string>();
  tensor.tensor = json.at("tensor").get<std::string>();
  absl::StatusOr<DType> dtype = DTypeFromName(json.at("dtype").get<std::string>());
  if (!dtype.ok()) throw std::invalid_argument(std::string(dtype.status().message()));
  tensor.dtype = *dtype;
  for (const Json& dim : json.at("shape")) tensor.shape.push_back(Count(dim));
  tensor.crc64 = HexValue(json.at("crc64"));
  return tensor;
}

Json FileJson(const ManifestFile& file) {
  Json regions = Json::array();
  for (const ManifestRegion& region : file.regions) {
    regions.push_back({region.tensor, region.flat_begin, region.flat_end, region.offset});
  }
  return {{"name", file.name},
          {"bytes", file.bytes},
          {"crc32c", file.chunk_crc32c},
          {"regions", std::move(regions)}};
}

ManifestFile FileFromJson(const Json& json) {
  ManifestFile file;
  file.name = json.at("name").get<std::string>();
  file.bytes = Count(json.at("bytes"));
  for (const Json& crc : json.at("crc32c")) {
    const int64_t value = Count(crc);
    if (value > std::numeric_limits<uint32_t>::max()) {
      throw std::invalid_argument("no CRC-32C: " + crc.dump());
    }
    file.chunk_crc32c.push_back(static_cast<uint32_t>(value));
  }
  for (const Json& entry : json.at("regions")) {
    ManifestRegion region;
    const int64_t tensor = Count(entry.at(0));
    if (tensor > std::numeric_limits<int>::max()) throw std::invalid_argument("tensor index");
    region.tensor = static_cast<int>(tensor);
    region.flat_begin = Count(entry.at(1));
    region.flat_end = Count(entry.at(2));
    region.offset = Count(entry.at(3));
    file.regions.push_back(region);
  }
  return file;
}

// The bytes of the whole tensor; throws if they do not fit 63 bits.
int64_t TensorElements(const ManifestTensor& tensor) {
  int64_t elements = 1;
  for (int64_t dim : tensor.shape) {
    if (dim > 0 && elements > std::numeric_limits<int64_t>::max() / 16 / dim) {
      throw std::invalid_argument("tensor " + tensor.tensor + " is too large");
    }
    elements *= dim;
  }
  return elements;
}

// What parsing alone does not show: sizes, indices and ranges that fit each other.
void CheckConsistent(const Manifest& manifest) {
  if (manifest.chunk_bytes < 1 || manifest.chunk_bytes > (int64_t{1} << 30)) {
    throw std::invalid_argument("chunk_bytes is " + std::to_string(manifest.chunk_bytes));
  }
  std::vector<int64_t> elements;
  for (const ManifestTensor& tensor : manifest.tensors) elements.push_back(TensorElements(tensor));
  for (const ManifestFile& file : manifest.files) {
    if (file.name.empty() || file.name.front() == '.' || file.name.find('/') != std::string::npos) {
      throw std::invalid_argument("file name '" + file.name + "'");
    }
    const int64_t chunks =
        file.bytes / manifest.chunk_bytes + (file.bytes % manifest.chunk_bytes != 0);
    if (static_cast<int64_t>(file.chunk_crc32c.size()) != chunks) {
      throw std::invalid_argument(file.name + ": " + std::to_string(file.chunk_crc32c.size()) +
                                  " CRCs for " + std::to_string(chunks) + " chunks");
    }
    for (const ManifestRegion& region : file.regions) {
      if (region.tensor >= static_cast<int>(manifest.tensors.size()) ||
          region.flat_end < region.flat_begin || region.flat_end > elements[region.tensor] ||
          region.offset > file.bytes ||
          (region.flat_end - region.flat_begin) * SizeOf(manifest.tensors[region.tensor].dtype) >
              file.bytes - region.offset) {
        throw std::invalid_argument(file.name + ": a region does not fit its tensor or its file");
      }
    }
  }
}

// Refuses formats that are not ours, by name. `name` tells which of our formats is meant.
absl::Status CheckFormat(const Json& json, const char* name, const std::string& source) {
  if (!json.is_object() || !json.contains("format") || json.at("format") != name ||
      !json.contains("version") || !json.at("version").is_number_integer()) {
    return absl::DataLossError(source + ": not a " + name + " file");
  }
  const int64_t version = json.at("version").get<int64_t>();
  if (version > kCheckpointVersion) {
    return absl::FailedPreconditionError(
        source + ": " + name + " version " + std::to_string(version) +
        "; this program reads up to version " + std::to_string(kCheckpointVersion) +
        ": use a newer Longspan");
  }
  if (version < 1) {
    return absl::DataLossError(source + ": " + name + " version " + std::to_string(version) +
                               " does not exist");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckJsonObject(const std::string& text, const std::string& what) {
  if (!Json::parse(text, nullptr, false).is_object()) {
    return absl::InvalidArgumentError(what + " is not a JSON object");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SerializeContribution(const RankContribution& contribution) {
  try {
    Json tensors = Json::array();
    for (const ManifestTensor& tensor : contribution.tensors) {
      tensors.push_back(TensorJson(tensor));
    }
    return Json{{"tensors", std::move(tensors)}, {"file", FileJson(contribution.file)}}.dump();
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(std::string("a tensor's name is not UTF-8: ") + error.what());
  }
}

absl::StatusOr<RankContribution> ParseContribution(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    RankContribution contribution;
    for (const Json& tensor : json.at("tensors")) {
      contribution.tensors.push_back(TensorFromJson(tensor));
    }
    contribution.file = FileFromJson(json.at("file"));
    for (const ManifestRegion& region : contribution.file.regions) {
      contribution.tensors.at(region.tensor);
    }
    return contribution;
  } catch (const std::exception& error) {
    return absl::InternalError(std::string("a rank's part of the manifest is malformed: ") +
                               error.what());
  }
}

absl::Status JoinContributions(const std::vector<RankContribution>& contributions,
                               Manifest& manifest) {
  struct Part {
    int64_t begin, end;
    uint64_t crc64;
    size_t rank;
  };
  std::map<std::pair<std::string, std::string>, std::pair<ManifestTensor, std::vector<Part>>> all;
  for (size_t rank = 0; rank < contributions.size(); ++rank) {
    const RankContribution& contribution = contributions[rank];
    for (const ManifestTensor& tensor : contribution.tensors) {
      auto [entry, added] = all.try_emplace({tensor.group, tensor.tensor});
      ManifestTensor& known = entry->second.first;
      if (added) known = tensor;
      if (known.dtype != tensor.dtype || known.shape != tensor.shape) {
        return absl::InvalidArgumentError("checkpoint: rank " + std::to_string(rank) +
                                          " gives another shape or dtype for " + tensor.group +
                                          "/" + tensor.tensor + " than a lower rank");
      }
    }
    for (const ManifestRegion& region : contribution.file.regions) {
      const ManifestTensor& tensor = contribution.tensors[region.tensor];
      all[{tensor.group, tensor.tensor}].second.push_back(
          {region.flat_begin, region.flat_end, tensor.crc64, rank});
    }
  }

  manifest.tensors.clear();
  std::map<std::pair<std::string, std::string>, int> index;
  for (auto& [name, entry] : all) {
    auto& [tensor, parts] = entry;
    std::sort(parts.begin(), parts.end(),
              [](const Part& a, const Part& b) { return a.begin < b.begin; });
    int64_t elements = 1;
    for (int64_t dim : tensor.shape) elements *= dim;
    int64_t next = 0;
    tensor.crc64 = 0;
    for (const Part& part : parts) {
      if (part.begin != next) {
        return absl::InvalidArgumentError(
            "checkpoint: elements [" + std::to_string(std::min(next, part.begin)) + ", " +
            std::to_string(std::max(next, part.begin)) + ") of " + name.first + "/" + name.second +
            (part.begin > next
                 ? " are held by no rank"
                 : " are held by rank " + std::to_string(part.rank) + " and by another one"));
      }
      tensor.crc64 =
          CombineCrc64(tensor.crc64, part.crc64, (part.end - part.begin) * SizeOf(tensor.dtype));
      next = part.end;
    }
    if (next != elements) {
      return absl::InvalidArgumentError("checkpoint: elements [" + std::to_string(next) + ", " +
                                        std::to_string(elements) + ") of " + name.first + "/" +
                                        name.second + " are held by no rank");
    }
    index[name] = static_cast<int>(manifest.tensors.size());
    manifest.tensors.push_back(tensor);
  }

  manifest.files.clear();
  for (const RankContribution& contribution : contributions) {
    manifest.files.push_back(contribution.file);
    for (ManifestRegion& region : manifest.files.back().regions) {
      const ManifestTensor& tensor = contribution.tensors[region.tensor];
      region.tensor = index[{tensor.group, tensor.tensor}];
    }
  }
  manifest.state_hash = StateHash(manifest.tensors);
  return absl::OkStatus();
}

uint64_t StateHash(const std::vector<ManifestTensor>& tensors) {
  uint64_t hash = 0;
  for (const ManifestTensor& tensor : tensors) {
    std::string line = tensor.group + "/" + tensor.tensor + " " + Name(tensor.dtype);
    for (int64_t dim : tensor.shape) absl::StrAppend(&line, " ", dim);
    absl::StrAppend(&line, " ", Hex64(tensor.crc64), "\n");
    hash = ExtendCrc64(hash, line.data(), static_cast<int64_t>(line.size()));
  }
  return hash;
}

absl::StatusOr<std::string> SerializeManifest(const Manifest& manifest) {
  try {
    Json tensors = Json::array();
    for (const ManifestTensor& tensor : manifest.tensors) tensors.push_back(TensorJson(tensor));
    Json files = Json::array();
    for (const ManifestFile& file : manifest.files) files.push_back(FileJson(file));
    const Json json = {{"format", kManifestFormat},
                       {"version", kCheckpointVersion},
                       {"run_id", manifest.run_id},
                       {"generation", manifest.generation},
                       {"step", manifest.step},
                       {"ranks", manifest.files.size()},
                       {"chunk_bytes", manifest.chunk_bytes},
                       {"state_hash", Hex64(manifest.state_hash)},
                       {"run", Json::parse(manifest.run)},
                       {"tensors", std::move(tensors)},
                       {"files", std::move(files)}};
    return json.dump() + "\n";
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(std::string("the manifest cannot be written as JSON: ") +
                                      error.what());
  }
}

absl::StatusOr<Manifest> ParseManifest(const std::string& text, const std::string& source) {
  try {
    const Json json = Json::parse(text);
    if (absl::Status status = CheckFormat(json, kManifestFormat, source); !status.ok()) {
      return status;
    }
    Manifest manifest;
    manifest.run_id = json.at("run_id").get<std::string>();
    manifest.generation = Count(json.at("generation"));
    manifest.step = Count(json.at("step"));
    manifest.chunk_bytes = Count(json.at("chunk_bytes"));
    manifest.state_hash = HexValue(json.at("state_hash"));
    manifest.run = json.at("run").dump();
    for (const Json& tensor : json.at("tensors")) {
      manifest.tensors.push_back(TensorFromJson(tensor));
    }
    for (const Json& file : json.at("files")) manifest.files.push_back(FileFromJson(file));
    CheckConsistent(manifest);
    return manifest;
  } catch (const std::exception& error) {
    return absl::DataLossError(source + ": not a manifest: " + error.what());
  }
}

std::string SerializeCommit(const CommitRecord& record) {
  std::string text = Json{{"format", kCommitFormat}, {"version", kCheckpointVersion},
                          {"run_id", record.run_id}, {"generation", record.generation},
                          {"step", record.step},     {"root_hash", Hex64(record.root_hash)},
                          {"time", record.time}}
                         .dump(-1, ' ', false, Json::error_handler_t::replace);
  text.pop_back();  // the closing brace: the CRC is the last member
  return text + kCommitCrcKey + Hex32(Crc32c(text.data(), static_cast<int64_t>(text.size()))) +
         "\"}\n";
}

absl::StatusOr<CommitRecord> ParseCommit(const std::string& text, const std::string& source) {
  const size_t covered = text.size() < kCommitTailBytes ? 0 : text.size() - kCommitTailBytes;
  if (covered == 0 ||
      text.substr(covered) !=
          kCommitCrcKey + Hex32(Crc32c(text.data(), static_cast<int64_t>(covered))) + "\"}\n") {
    return absl::DataLossError(source + ": the commit record is damaged or incomplete");
  }
  try {
    const Json json = Json::parse(text);
    if (absl::Status status = CheckFormat(json, kCommitFormat, source); !status.ok()) {
      return status;
    }
    CommitRecord record;
    record.run_id = json.at("run_id").get<std::string>();
    record.generation = Count(json.at("generation"));
    record.step = Count(json.at("step"));
    record.root_hash = HexValue(json.at("root_hash"));
    record.time = json.value("time", "");
    return record;
  } catch (const std::exception& error) {
    return absl::DataLossError(source + ": not a commit record: " + error.what());
  }
}

}  // namespace longspan
