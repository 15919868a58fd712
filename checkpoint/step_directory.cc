#include "checkpoint/step_directory.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "checkpoint/checksum.h"

namespace longspan {
namespace {

// `value` with at least `digits` digits.
std::string Padded(int64_t value, int digits) {
  char text[32];
  std::snprintf(text, sizeof(text), "%0*lld", digits, static_cast<long long>(value));
  return text;
}

absl::Status WriteNew(FileSystem& files, const std::string& path, const std::string& content) {
  absl::StatusOr<std::unique_ptr<File>> file = files.Create(path);
  if (!file.ok()) return file.status();
  if (absl::Status status =
          (*file)->WriteAt(0, content.data(), static_cast<int64_t>(content.size()));
      !status.ok()) {
    return status;
  }
  return (*file)->Sync();
}

}  // namespace

std::string PaddedGeneration(int64_t generation) { return Padded(generation, 4); }

std::optional<int64_t> ParseNumber(const std::string& digits) {
  if (digits.empty() || digits.size() > 18 ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return std::stoll(digits);
}

std::string StepDirectoryName(const StepName& name) {
  return "step-" + Padded(name.step, 8) + ".g" + PaddedGeneration(name.generation);
}

std::optional<StepName> ParseStepDirectoryName(const std::string& name) {
  const size_t dot = name.find(".g");
  if (name.rfind("step-", 0) != 0 || dot == std::string::npos) return std::nullopt;
  const std::optional<int64_t> step = ParseNumber(name.substr(5, dot - 5));
  const std::optional<int64_t> generation = ParseNumber(name.substr(dot + 2));
  if (!step || !generation) return std::nullopt;
  // One name for one step: "step-1.g1" is not ours.
  const StepName parsed{*step, *generation};
  if (StepDirectoryName(parsed) != name) return std::nullopt;
  return parsed;
}

std::string GenerationFileName(int64_t generation) {
  return "generation-" + PaddedGeneration(generation);
}

std::optional<int64_t> ParseGenerationFileName(const std::string& name) {
  if (name.rfind("generation-", 0) != 0) return std::nullopt;
  return ParseNumber(name.substr(11));
}

std::string RankFileName(int rank) { return "rank-" + Padded(rank, 5) + ".h5"; }

std::optional<int> ParseRankFileName(const std::string& name) {
  constexpr size_t kBefore = 5, kAfter = 3;
  if (name.size() <= kBefore + kAfter) return std::nullopt;
  const std::optional<int64_t> rank =
      ParseNumber(name.substr(kBefore, name.size() - kBefore - kAfter));
  if (!rank || RankFileName(static_cast<int>(*rank)) != name) return std::nullopt;
  return static_cast<int>(*rank);
}

std::string JoinPath(const std::string& directory, const std::string& name) {
  return !directory.empty() && directory.back() == '/' ? directory + name : directory + "/" + name;
}

std::string ParentPath(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return "/";
  const size_t slash = path.rfind('/', end);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

int64_t HighestGeneration(const std::vector<std::string>& names) {
  int64_t highest = 0;
  for (const std::string& name : names) {
    if (const auto generation = ParseGenerationFileName(name)) {
      highest = std::max(highest, *generation);
    } else if (const auto step = ParseStepDirectoryName(name)) {
      highest = std::max(highest, step->generation);
    }
  }
  return highest;
}

absl::Status CreateDurably(FileSystem& files, const std::string& directory, const std::string& name,
                           const std::string& content) {
  if (absl::Status status = WriteNew(files, JoinPath(directory, name), content); !status.ok()) {
    return status;
  }
  return files.SyncDirectory(directory);
}

absl::Status ReplaceDurably(FileSystem& files, const std::string& directory,
                            const std::string& name, const std::string& content) {
  const std::string path = JoinPath(directory, name);
  const std::string temporary = path + ".tmp";
  const absl::Status removed = files.Remove(temporary);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  if (absl::Status status = WriteNew(files, temporary, content); !status.ok()) return status;
  if (absl::Status status = files.Rename(temporary, path); !status.ok()) return status;
  return files.SyncDirectory(directory);
}

absl::Status WithdrawCommit(FileSystem& files, const std::string& directory) {
  const absl::Status removed = files.Remove(JoinPath(directory, kCommitName));
  if (absl::IsNotFound(removed)) return absl::OkStatus();
  if (!removed.ok()) return removed;
  return files.SyncDirectory(directory);
}

absl::Status DeleteStepDirectory(FileSystem& files, const std::string& directory) {
  if (absl::Status status = WithdrawCommit(files, directory); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> names = files.List(directory);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const absl::Status removed = files.Remove(JoinPath(directory, name));
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  }
  return files.Remove(directory);
}

absl::StatusOr<Manifest> ReadCommittedManifest(FileSystem& files, const std::string& directory,
                                               CommitRecord* record, Holds holds) {
  const std::string commit_path = JoinPath(directory, kCommitName);
  const std::string manifest_path = JoinPath(directory, kManifestName);
  absl::StatusOr<std::string> commit_text = files.ReadAll(commit_path);
  if (absl::IsNotFound(commit_text.status())) {
    return absl::NotFoundError(directory + (files.Exists(directory)
                                                ? ": no commit record: the save was not finished"
                                                : ": there is no such checkpoint"));
  }
  if (!commit_text.ok()) return commit_text.status();
  absl::StatusOr<CommitRecord> commit = ParseCommit(*commit_text, commit_path);
  if (!commit.ok()) return commit.status();

  absl::StatusOr<std::string> text = files.ReadAll(manifest_path);
  if (absl::IsNotFound(text.status())) {
    return absl::DataLossError(manifest_path + " is missing although the step is committed");
  }
  if (!text.ok()) return text.status();
  const uint64_t hash = ExtendCrc64(0, text->data(), static_cast<int64_t>(text->size()));
  if (hash != commit->root_hash) {
    return absl::DataLossError(manifest_path + ": its hash is " + Hex64(hash) + ", " + kCommitName +
                               " says " + Hex64(commit->root_hash) + ": the file is damaged");
  }
  absl::StatusOr<Manifest> manifest = ParseManifest(*text, manifest_path);
  if (!manifest.ok()) return manifest.status();
  if (manifest->generation != commit->generation || manifest->step != commit->step ||
      manifest->run_id != commit->run_id) {
    return absl::DataLossError(manifest_path + " and " + kCommitName +
                               " belong to different saves");
  }

  if (holds == Holds::kAllFiles) {
    absl::StatusOr<std::vector<std::string>> missing = FilesElsewhere(files, *manifest, directory);
    if (!missing.ok()) return missing.status();
    if (!missing->empty()) {
      return absl::DataLossError(JoinPath(directory, missing->front()) +
                                 " is missing although the step is committed");
    }
  }
  if (record != nullptr) *record = *std::move(commit);
  return manifest;
}

absl::StatusOr<std::vector<std::string>> FilesElsewhere(FileSystem& files, const Manifest& manifest,
                                                        const std::string& directory) {
  absl::StatusOr<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) return names.status();
  std::vector<std::string> missing;
  for (const ManifestFile& file : manifest.files) {
    if (!std::binary_search(names->begin(), names->end(), file.name)) missing.push_back(file.name);
  }
  return missing;
}

}  // namespace longspan
