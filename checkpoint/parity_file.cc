#include "checkpoint/parity_file.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "checkpoint/checksum.h"
#include "checkpoint/manifest.h"
#include "nlohmann/json.hpp"

namespace longspan {
namespace {

constexpr char kFormat[] = "longspan-parity";
// At the end of the file: where the description begins, and its CRC-32C, as text.
constexpr int64_t kTrailerBytes = 16 + 1 + 8 + 1;

std::string Trailer(int64_t begin, const std::string& description) {
  return absl::StrCat(Hex64(static_cast<uint64_t>(begin)), " ",
                      Hex32(Crc32c(description.data(), static_cast<int64_t>(description.size()))),
                      "\n");
}

// What a layout must be for its arithmetic to hold.
bool Sound(const ParityDescription& description) {
  const ErasureLayout& layout = description.layout;
  if (layout.data < 1 || layout.parity < 1 || layout.data + layout.parity != layout.members() ||
      layout.symbol_bytes < 1 || description.files.size() != layout.file_bytes.size() ||
      description.member < 0 || description.member >= layout.members()) {
    return false;
  }
  for (const int64_t bytes : layout.file_bytes) {
    if (bytes < 0) return false;
  }
  return static_cast<int64_t>(description.symbol_crc32c.size()) == layout.cycles() * layout.parity;
}

}  // namespace

std::string ParityFileName(int group, int member) {
  return absl::StrFormat("parity-%05d-%02d", group, member);
}

bool IsParityFileName(const std::string& name) { return name.rfind("parity-", 0) == 0; }

bool ParityDescription::SameGroup(const ParityDescription& other) const {
  return run_id == other.run_id && step.step == other.step.step &&
         step.generation == other.step.generation && group == other.group && files == other.files &&
         layout.data == other.layout.data && layout.parity == other.layout.parity &&
         layout.symbol_bytes == other.layout.symbol_bytes &&
         layout.file_bytes == other.layout.file_bytes;
}

std::string SerializeParity(const ParityDescription& description) {
  nlohmann::json files = nlohmann::json::array();
  for (size_t member = 0; member < description.files.size(); ++member) {
    files.push_back({description.files[member], description.layout.file_bytes[member]});
  }
  return nlohmann::json{{"format", kFormat},
                        {"version", kCheckpointVersion},
                        {"run_id", description.run_id},
                        {"generation", description.step.generation},
                        {"step", description.step.step},
                        {"group", description.group},
                        {"member", description.member},
                        {"data", description.layout.data},
                        {"parity", description.layout.parity},
                        {"symbol_bytes", description.layout.symbol_bytes},
                        {"files", std::move(files)},
                        {"crc32c", description.symbol_crc32c}}
      .dump();
}

absl::StatusOr<ParityDescription> ParseParity(const std::string& text, const std::string& source) {
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    if (json.at("format") != kFormat) return absl::DataLossError(source + " is no parity file");
    if (json.at("version") > kCheckpointVersion) {
      return absl::FailedPreconditionError(source + " is of a newer version");
    }
    ParityDescription description;
    description.run_id = json.at("run_id");
    description.step = {json.at("step"), json.at("generation")};
    description.group = json.at("group");
    description.member = json.at("member");
    description.layout.data = json.at("data");
    description.layout.parity = json.at("parity");
    description.layout.symbol_bytes = json.at("symbol_bytes");
    for (const nlohmann::json& file : json.at("files")) {
      description.files.push_back(file.at(0));
      description.layout.file_bytes.push_back(file.at(1));
    }
    description.symbol_crc32c = json.at("crc32c").get<std::vector<uint32_t>>();
    if (!Sound(description)) return absl::DataLossError(source + ": its layout contradicts itself");
    return description;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat(source, ": ", error.what()));
  }
}

ParityFileWriter::ParityFileWriter(FileSystem& files, std::string directory,
                                   ParityDescription description, std::unique_ptr<File> file)
    : files_(files),
      directory_(std::move(directory)),
      description_(std::move(description)),
      file_(std::move(file)) {}

absl::StatusOr<std::unique_ptr<ParityFileWriter>> ParityFileWriter::Create(
    FileSystem& files, const std::string& directory, ParityDescription description) {
  absl::StatusOr<std::unique_ptr<File>> file =
      files.Create(JoinPath(directory, ParityFileName(description.group, description.member)));
  if (!file.ok()) return file.status();
  if (absl::Status status = (*file)->Reserve(description.layout.ParityBytes()); !status.ok()) {
    return status;
  }
  return std::unique_ptr<ParityFileWriter>(
      new ParityFileWriter(files, directory, std::move(description), *std::move(file)));
}

absl::Status ParityFileWriter::Add(const char* symbol) {
  const int64_t bytes = description_.layout.symbol_bytes;
  const auto number = static_cast<int64_t>(description_.symbol_crc32c.size());
  description_.symbol_crc32c.push_back(Crc32c(symbol, bytes));
  return file_->WriteAt(number * bytes, symbol, bytes);
}

absl::Status ParityFileWriter::Finish() {
  const int64_t begin = description_.layout.ParityBytes();
  std::string end = SerializeParity(description_);
  end += Trailer(begin, end);
  if (absl::Status status = file_->WriteAt(begin, end.data(), static_cast<int64_t>(end.size()));
      !status.ok()) {
    return status;
  }
  if (absl::Status status = file_->Sync(); !status.ok()) return status;
  file_.reset();
  return files_.SyncDirectory(directory_);
}

ParityFileReader::ParityFileReader(std::string path, std::unique_ptr<File> file,
                                   ParityDescription description)
    : path_(std::move(path)), file_(std::move(file)), description_(std::move(description)) {}

absl::StatusOr<std::unique_ptr<ParityFileReader>> ParityFileReader::Open(FileSystem& files,
                                                                         const std::string& path) {
  absl::StatusOr<std::unique_ptr<File>> file = files.OpenForRead(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<int64_t> size = (*file)->Size();
  if (!size.ok()) return size.status();
  const auto damaged = [&] {
    return absl::DataLossError(path + " is damaged: its end does not describe it");
  };
  std::string trailer(kTrailerBytes, '\0');
  if (*size < kTrailerBytes) return damaged();
  const int64_t end = *size - kTrailerBytes;
  if (absl::Status status = (*file)->ReadAt(end, trailer.data(), kTrailerBytes); !status.ok()) {
    return status;
  }
  uint64_t begin = 0;
  if (!absl::SimpleHexAtoi(absl::string_view(trailer).substr(0, 16), &begin) ||
      begin > static_cast<uint64_t>(end)) {
    return damaged();
  }
  std::string text(static_cast<size_t>(end) - begin, '\0');
  if (absl::Status status = (*file)->ReadAt(static_cast<int64_t>(begin), text.data(),
                                            static_cast<int64_t>(text.size()));
      !status.ok()) {
    return status;
  }
  if (trailer != Trailer(static_cast<int64_t>(begin), text)) return damaged();
  absl::StatusOr<ParityDescription> description = ParseParity(text, path);
  if (!description.ok()) return description.status();
  if (description->layout.ParityBytes() != static_cast<int64_t>(begin)) return damaged();
  return std::unique_ptr<ParityFileReader>(
      new ParityFileReader(path, *std::move(file), *std::move(description)));
}

absl::Status ParityFileReader::Read(int64_t number, char* symbol) {
  const int64_t bytes = description_.layout.symbol_bytes;
  if (absl::Status status = file_->ReadAt(number * bytes, symbol, bytes); !status.ok()) {
    return status;
  }
  const uint32_t crc = Crc32c(symbol, bytes);
  const uint32_t expected = description_.symbol_crc32c[static_cast<size_t>(number)];
  if (crc == expected) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path_, ": bytes [", number * bytes, ", ",
                                          (number + 1) * bytes, ") are damaged: CRC-32C ",
                                          Hex32(crc), ", its description says ", Hex32(expected)));
}

}  // namespace longspan
