// Which steps lie where: in the checkpoint directory, and in the tiers of every node.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/node_steps.h"
#include "checkpoint/parity_file.h"
#include "checkpoint/step_directory.h"
#include "checkpoint/tiers.h"
#include "checkpoint/vote.h"
#include "nlohmann/json.hpp"

namespace longspan {
namespace {

bool IsRankFile(const std::string& name) { return name.rfind("rank-", 0) == 0; }

// Of one directory of a tier: every step directory, with what is in it.
nlohmann::json Listing(FileSystem& files, const TierDirectory& tier) {
  nlohmann::json steps = nlohmann::json::array();
  absl::StatusOr<std::vector<std::string>> names = files.List(tier.directory);
  // A tier that cannot be read has nothing to offer; the other places are asked.
  if (!names.ok()) return steps;
  for (const std::string& name : *names) {
    const std::optional<StepName> step = ParseStepDirectoryName(name);
    if (!step) continue;
    const std::string path = JoinPath(tier.directory, name);
    absl::StatusOr<std::vector<std::string>> content = files.List(path);
    if (!content.ok()) continue;
    nlohmann::json held = nlohmann::json::array(), parity = nlohmann::json::array();
    for (const std::string& file : *content) {
      if (IsParityFileName(file)) {
        // One that is damaged has nothing to offer either.
        auto opened = ParityFileReader::Open(files, JoinPath(path, file));
        if (!opened.ok()) continue;
        ParityDescription description = (*opened)->description();
        if (ParityFileName(description.group, description.member) != file) continue;
        parity.push_back(SerializeParity(description));
      }
      if (!IsRankFile(file)) continue;
      absl::StatusOr<std::unique_ptr<File>> opened = files.OpenForRead(JoinPath(path, file));
      if (!opened.ok()) continue;
      absl::StatusOr<int64_t> bytes = (*opened)->Size();
      if (bytes.ok()) held.push_back({file, *bytes});
    }
    const absl::StatusOr<Manifest> manifest =
        ReadCommittedManifest(files, path, nullptr, Holds::kSomeFiles);
    const bool committed =
        manifest.ok() && manifest->step == step->step && manifest->generation == step->generation;
    steps.push_back({{"tier", tier.name},
                     {"directory", path},
                     {"step", step->step},
                     {"generation", step->generation},
                     {"committed", committed},
                     {"files", std::move(held)},
                     {"parity", std::move(parity)}});
  }
  return steps;
}

using Key = std::pair<int64_t, int64_t>;  // generation, step

}  // namespace

absl::StatusOr<std::vector<TierListing>> ListTiers(FileSystem& files,
                                                   const std::string& checkpoint_directory) {
  absl::StatusOr<std::vector<TierDirectory>> tiers = ReadTiers(files, checkpoint_directory);
  if (!tiers.ok()) return tiers.status();
  std::vector<TierListing> listings;
  for (const TierDirectory& tier : *tiers) {
    absl::StatusOr<std::vector<CheckpointInfo>> committed =
        ListCommitted(files, tier.directory, Holds::kSomeFiles, nullptr);
    if (!committed.ok()) return committed.status();
    for (CheckpointInfo& info : *committed) {
      TierListing listing;
      listing.tier = tier.name;
      absl::StatusOr<std::vector<std::string>> content = files.List(info.directory);
      if (!content.ok()) return content.status();
      listing.files_here =
          static_cast<int>(std::count_if(content->begin(), content->end(), IsRankFile));
      listing.parity_here =
          static_cast<int>(std::count_if(content->begin(), content->end(), IsParityFileName));
      listing.info = std::move(info);
      listings.push_back(std::move(listing));
    }
  }
  std::stable_sort(listings.begin(), listings.end(), [](const auto& a, const auto& b) {
    return std::pair(a.info.generation, a.info.step) > std::pair(b.info.generation, b.info.step);
  });
  return listings;
}

std::string FoundCheckpoint::where() const {
  std::vector<std::string> places;
  std::map<std::string, std::set<int>> nodes;
  for (const Copy& copy : copies) nodes[copy.tier].insert(copy.node);
  for (const auto& [tier, on] : nodes) {
    places.push_back(absl::StrCat(tier, " of ", on.size(), on.size() == 1 ? " node" : " nodes"));
  }
  if (!directory.empty()) places.push_back(directory);
  return absl::StrJoin(places, ", ");
}

absl::StatusOr<std::vector<FoundCheckpoint>> FindCheckpoints(
    FileSystem& files, const std::string& checkpoint_directory,
    const std::vector<TierDirectory>& tiers, const std::vector<int>& nodes, Transport& transport,
    std::vector<std::string>* skipped) {
  nlohmann::json mine = nlohmann::json::array();
  absl::Status status;
  if (transport.rank() == 0) {
    absl::StatusOr<std::vector<CheckpointInfo>> committed =
        ListCheckpoints(files, checkpoint_directory, skipped);
    status = committed.status();
    if (committed.ok()) {
      for (const CheckpointInfo& info : *committed) {
        mine.push_back({{"tier", ""},
                        {"directory", info.directory},
                        {"step", info.step},
                        {"generation", info.generation}});
      }
    }
  }
  if (NodeLeaders(nodes)[transport.rank()] == transport.rank()) {
    for (const TierDirectory& tier : tiers) {
      for (nlohmann::json& step : Listing(files, tier)) mine.push_back(std::move(step));
    }
  }
  absl::StatusOr<std::vector<std::string>> all =
      Vote(transport, "find checkpoints", status, mine.dump());
  if (!all.ok()) return all.status();

  std::map<Key, FoundCheckpoint, std::greater<>> found;
  for (size_t rank = 0; rank < all->size(); ++rank) {
    for (const nlohmann::json& entry : nlohmann::json::parse((*all)[rank])) {
      const Key key{entry.at("generation"), entry.at("step")};
      FoundCheckpoint& step = found[key];
      std::tie(step.generation, step.step) = key;
      if (entry.at("tier") == "") {
        step.directory = entry.at("directory");
        continue;
      }
      FoundCheckpoint::Copy copy;
      copy.tier = entry.at("tier");
      copy.directory = entry.at("directory");
      copy.node = nodes[rank];
      copy.committed = entry.at("committed");
      for (const nlohmann::json& file : entry.at("files")) {
        copy.files.emplace_back(file.at(0), file.at(1));
      }
      copy.parity = entry.at("parity").get<std::vector<std::string>>();
      step.copies.push_back(std::move(copy));
    }
  }
  std::vector<FoundCheckpoint> steps;
  for (auto& [key, step] : found) {
    const bool counts =
        !step.directory.empty() ||
        std::any_of(step.copies.begin(), step.copies.end(),
                    [](const FoundCheckpoint::Copy& copy) { return copy.committed; });
    if (counts) steps.push_back(std::move(step));
  }
  return steps;
}

}  // namespace longspan
