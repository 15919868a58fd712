#include "runtime/model/safetensors.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/file_system.h"
#include "nlohmann/json.hpp"

namespace longspan {
namespace {

using Json = nlohmann::json;
constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr int64_t kMostHeaderBytes = int64_t{100} << 20;  // as the reference reader has it

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (int64_t dim : shape) elements *= dim;
  return elements;
}

int64_t BytesOf(const std::string& dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

float FromHalf(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const auto mantissa = static_cast<float>(half & 1023);
  const float sign = half >> 15 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

absl::Status ListFile(const std::string& path, std::map<std::string, SafetensorsEntry>& entries) {
  absl::StatusOr<std::unique_ptr<File>> file = PosixFileSystem().OpenForRead(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<int64_t> size = (*file)->Size();
  if (!size.ok()) return size.status();
  uint64_t header_bytes = 0;
  if (absl::Status status = (*file)->ReadAt(0, &header_bytes, sizeof(header_bytes)); !status.ok()) {
    return status;
  }
  if (header_bytes > static_cast<uint64_t>(kMostHeaderBytes) ||
      static_cast<int64_t>(header_bytes) > *size - 8) {
    return absl::DataLossError(absl::StrCat(path, ": not a safetensors file"));
  }
  std::string header(header_bytes, '\0');
  if (absl::Status status = (*file)->ReadAt(8, header.data(), static_cast<int64_t>(header_bytes));
      !status.ok()) {
    return status;
  }
  const int64_t data = 8 + static_cast<int64_t>(header_bytes);
  try {
    const Json tensors = Json::parse(header);
    for (const auto& [name, value] : tensors.items()) {
      if (name == "__metadata__") continue;
      SafetensorsEntry entry;
      entry.path = path;
      entry.dtype = value.at("dtype");
      entry.shape = value.at("shape").get<std::vector<int64_t>>();
      entry.begin = data + value.at("data_offsets").at(0).get<int64_t>();
      entry.end = data + value.at("data_offsets").at(1).get<int64_t>();
      const int64_t width = BytesOf(entry.dtype);
      if (entry.begin < data || entry.end < entry.begin || entry.end > *size ||
          (width > 0 && entry.end - entry.begin != width * Elements(entry.shape))) {
        return absl::DataLossError(
            absl::StrCat(path, ": ", name, " does not fit its place in the file"));
      }
      entries[name] = std::move(entry);
    }
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": the header does not read: ", error.what()));
  }
  return absl::OkStatus();
}

// The JSON header, padded with spaces so that data begin at a multiple of 8.
std::string HeaderOf(const std::vector<const SafetensorsSource*>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t at = 0;
  for (const SafetensorsSource* tensor : tensors) {
    const int64_t bytes = Elements(tensor->shape) * 4;
    header[tensor->name] = {
        {"dtype", "F32"}, {"shape", tensor->shape}, {"data_offsets", {at, at + bytes}}};
    at += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

absl::Status WriteFile(const std::string& path,
                       const std::vector<const SafetensorsSource*>& tensors) {
  absl::StatusOr<std::unique_ptr<File>> file = PosixFileSystem().Create(path);
  if (!file.ok()) return file.status();
  const std::string header = HeaderOf(tensors);
  const uint64_t header_bytes = header.size();
  absl::Status status = (*file)->WriteAt(0, &header_bytes, sizeof(header_bytes));
  status.Update((*file)->WriteAt(8, header.data(), static_cast<int64_t>(header.size())));
  int64_t at = 8 + static_cast<int64_t>(header.size());
  for (const SafetensorsSource* tensor : tensors) {
    std::vector<float> values(static_cast<size_t>(Elements(tensor->shape)));
    if (status.ok()) status = tensor->read(values.data());
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
    if (status.ok()) status = (*file)->WriteAt(at, values.data(), bytes);
    if (!status.ok()) return status;
    at += bytes;
  }
  return (*file)->Sync();
}

}  // namespace

absl::StatusOr<std::map<std::string, SafetensorsEntry>> ListSafetensors(
    const std::string& directory) {
  FileSystem& files = PosixFileSystem();
  std::map<std::string, SafetensorsEntry> entries;
  const std::string single = absl::StrCat(directory, "/", kSingle);
  const std::string index = absl::StrCat(directory, "/", kIndex);
  if (files.Exists(single)) {
    if (absl::Status status = ListFile(single, entries); !status.ok()) return status;
    return entries;
  }
  if (!files.Exists(index)) {
    return absl::NotFoundError(
        absl::StrCat(directory, " holds neither ", kSingle, " nor ", kIndex));
  }
  absl::StatusOr<std::string> text = files.ReadAll(index);
  if (!text.ok()) return text.status();
  std::map<std::string, std::string> shards;
  try {
    shards = Json::parse(*text).at("weight_map").get<std::map<std::string, std::string>>();
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat(index, " does not read: ", error.what()));
  }
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shards) names.insert(shard);
  for (const std::string& name : names) {
    if (absl::Status status = ListFile(absl::StrCat(directory, "/", name), entries); !status.ok()) {
      return status;
    }
  }
  for (const auto& [tensor, shard] : shards) {
    if (entries.count(tensor) == 0) {
      return absl::DataLossError(absl::StrCat(index, ": ", tensor, " is not in ", shard));
    }
  }
  return entries;
}

absl::Status ReadSafetensor(const SafetensorsEntry& entry, float* values) {
  const int64_t elements = Elements(entry.shape);
  absl::StatusOr<std::unique_ptr<File>> file = PosixFileSystem().OpenForRead(entry.path);
  if (!file.ok()) return file.status();
  if (entry.dtype == "F32") return (*file)->ReadAt(entry.begin, values, elements * 4);
  if (entry.dtype != "BF16" && entry.dtype != "F16") {
    return absl::InvalidArgumentError(
        absl::StrCat(entry.path, ": weights of type ", entry.dtype, " are not read"));
  }
  std::vector<uint16_t> halves(static_cast<size_t>(elements));
  if (absl::Status status = (*file)->ReadAt(entry.begin, halves.data(), elements * 2);
      !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < halves.size(); ++i) {
    values[i] = entry.dtype == "F16" ? FromHalf(halves[i])
                                     : std::bit_cast<float>(static_cast<uint32_t>(halves[i]) << 16);
  }
  return absl::OkStatus();
}

absl::Status WriteSafetensors(const std::string& directory,
                              const std::vector<SafetensorsSource>& tensors, int64_t shard_bytes) {
  std::vector<std::vector<const SafetensorsSource*>> shards;
  int64_t in_shard = 0, total = 0;
  for (const SafetensorsSource& tensor : tensors) {
    const int64_t bytes = Elements(tensor.shape) * 4;
    if (shards.empty() || in_shard + bytes > shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(&tensor);
    in_shard += bytes;
    total += bytes;
  }
  if (shards.size() == 1) return WriteFile(absl::StrCat(directory, "/", kSingle), shards[0]);
  Json map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
    if (absl::Status status = WriteFile(absl::StrCat(directory, "/", name), shards[i]);
        !status.ok()) {
      return status;
    }
    for (const SafetensorsSource* tensor : shards[i]) map[tensor->name] = name;
  }
  const std::string text =
      Json{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}}.dump(2) + "\n";
  absl::StatusOr<std::unique_ptr<File>> file =
      PosixFileSystem().Create(absl::StrCat(directory, "/", kIndex));
  if (!file.ok()) return file.status();
  if (absl::Status status = (*file)->WriteAt(0, text.data(), static_cast<int64_t>(text.size()));
      !status.ok()) {
    return status;
  }
  return (*file)->Sync();
}

}  // namespace longspan
