#include "launch/checkpoint_reader.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/train/agreement.h"

namespace longspan {
namespace {

// What rank 0 tells the others: "r" and the reader's number, or "e", the code of what `lead`
// returned as one byte, and its message.
constexpr char kRead = 'r', kEnd = 'e';

// Collective.
absl::StatusOr<FoundCheckpoint> FindNewest(FileSystem& files, const std::string& run,
                                           const std::vector<int>& nodes, Transport& transport) {
  const std::string directory = run + "/checkpoints";
  const absl::StatusOr<std::vector<TierDirectory>> tiers = ReadTiers(files, directory);
  if (absl::Status status = Agree(transport, tiers.status()); !status.ok()) return status;
  absl::StatusOr<std::vector<FoundCheckpoint>> found =
      FindCheckpoints(files, directory, *tiers, nodes, transport);
  if (!found.ok()) return found.status();
  if (found->empty()) return absl::NotFoundError(run + ": no committed checkpoint");
  return std::move(found->front());
}

// Collective.
absl::StatusOr<FoundCheckpoint> FindDirectory(FileSystem& files, const std::string& directory,
                                              bool in_tier, const std::vector<int>& nodes,
                                              Transport& transport) {
  if (in_tier) {
    std::filesystem::path path(directory);
    if (!path.has_filename()) path = path.parent_path();
    const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
    const std::string copied = parent / path.filename();
    absl::StatusOr<std::vector<FoundCheckpoint>> found =
        FindCheckpoints(files, directory + "/checkpoints", {{parent, parent}}, nodes, transport);
    if (!found.ok()) return found.status();
    for (FoundCheckpoint& each : *found) {
      const bool asked_for =
          std::any_of(each.copies.begin(), each.copies.end(),
                      [&](const FoundCheckpoint::Copy& copy) { return copy.directory == copied; });
      if (asked_for) return std::move(each);
    }
  }
  // By whatever name, if all of its files are there.
  const absl::StatusOr<CheckpointInfo> info = ReadCheckpointInfo(files, directory);
  if (absl::Status status = Agree(transport, info.status()); !status.ok()) return status;
  FoundCheckpoint found;
  found.step = info->step;
  found.generation = info->generation;
  found.directory = directory;
  return found;
}

}  // namespace

bool InTier(const std::string& step_directory) {
  const absl::StatusOr<std::vector<std::string>> beside =
      PosixFileSystem().List(step_directory + "/..");
  return !beside.ok() || std::none_of(beside->begin(), beside->end(), [](const std::string& name) {
    return name.rfind("generation-", 0) == 0;
  });
}

CheckpointReader::CheckpointReader(FoundCheckpoint found, std::vector<int> nodes,
                                   std::string tokenizer, Transport& transport)
    : found_(std::move(found)),
      nodes_(std::move(nodes)),
      tokenizer_(std::move(tokenizer)),
      transport_(transport) {}

absl::StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::Open(const std::string& path,
                                                                         Transport& transport) {
  FileSystem& files = PosixFileSystem();
  absl::StatusOr<std::vector<int>> nodes = NodesByHost(transport);
  if (!nodes.ok()) return nodes.status();
  // As rank 0 sees it: a node that is new lacks its tiers.
  const bool run_here = files.Exists(path + "/checkpoints");
  const absl::StatusOr<std::string> kind = transport.BroadcastBytes(run_here       ? "run"
                                                                    : InTier(path) ? "tier"
                                                                                   : "shared",
                                                                    0);
  if (!kind.ok()) return kind.status();
  absl::StatusOr<FoundCheckpoint> found =
      *kind == "run" ? FindNewest(files, path, *nodes, transport)
                     : FindDirectory(files, path, *kind == "tier", *nodes, transport);
  if (!found.ok()) return found.status();
  // RUN/checkpoints/STEP -> RUN/tokenizer.model
  const std::string tokenizer =
      absl::StrCat(path, *kind == "run" ? "" : "/../..", "/tokenizer.model");
  std::unique_ptr<CheckpointReader> reader(
      new CheckpointReader(*std::move(found), *std::move(nodes), tokenizer, transport));
  absl::StatusOr<std::unique_ptr<TieredRestore>> restore =
      TieredRestore::Open(files, reader->found_, reader->nodes_, transport);
  if (restore.ok()) {
    reader->restore_ = *std::move(restore);
    return reader;
  }
  if (!absl::IsDataLoss(restore.status()) || reader->found_.copies.empty()) return restore.status();
  return absl::DataLossError(
      absl::StrCat(restore.status().message(),
                   ". What other nodes have is found if this command runs on them too: under "
                   "mpirun, a rank on each; or name an older checkpoint's directory"));
}

absl::Status CheckpointReader::Read(const std::vector<StateRegion>& regions) {
  const absl::StatusOr<std::string> told =
      transport_.BroadcastBytes(absl::StrCat(std::string(1, kRead), number_), 0);
  if (!told.ok()) return told.status();
  std::vector<std::string> notes;
  const absl::Status status = restore_->Restore(regions, &notes);
  for (const std::string& note : notes) {
    if (said_.insert(note).second) std::fprintf(stderr, "longspan: %s\n", note.c_str());
  }
  return status;
}

absl::Status LeadReads(const std::vector<CheckpointReader*>& readers, Transport& transport,
                       const std::function<absl::Status()>& lead) {
  for (size_t i = 0; i < readers.size(); ++i) readers[i]->number_ = i;
  if (transport.rank() == 0) {
    const absl::Status status = lead();
    const absl::StatusOr<std::string> told = transport.BroadcastBytes(
        absl::StrCat(std::string(1, kEnd), std::string(1, static_cast<char>(status.code())),
                     status.message()),
        0);
    return status.ok() ? told.status() : status;
  }
  while (true) {
    const absl::StatusOr<std::string> told = transport.BroadcastBytes("", 0);
    if (!told.ok()) return told.status();
    if ((*told)[0] == kEnd) {
      return absl::Status(static_cast<absl::StatusCode>((*told)[1]), told->substr(2));
    }
    // A read that fails does so on rank 0 as well, which decides what comes of it.
    readers[std::stoull(told->substr(1))]->restore_->Restore({}, nullptr).IgnoreError();
  }
}

}  // namespace longspan
