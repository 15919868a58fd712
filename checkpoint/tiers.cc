#include "checkpoint/tiers.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/erasure_groups.h"
#include "checkpoint/node_steps.h"
#include "checkpoint/spare_files.h"
#include "checkpoint/step_directory.h"
#include "checkpoint/step_protocol.h"
#include "checkpoint/vote.h"
#include "nlohmann/json.hpp"

namespace longspan {
namespace {

constexpr char kTiersName[] = "tiers.json";

struct KnownTiers {
  std::string key;  // of this run: part of the directories' names
  std::vector<TierDirectory> tiers;
};

absl::StatusOr<KnownTiers> ReadKnown(FileSystem& files, const std::string& directory) {
  const std::string path = JoinPath(directory, kTiersName);
  absl::StatusOr<std::string> text = files.ReadAll(path);
  if (absl::IsNotFound(text.status())) return KnownTiers();
  if (!text.ok()) return text.status();
  try {
    const nlohmann::json json = nlohmann::json::parse(*text);
    KnownTiers known;
    known.key = json.at("key");
    for (const nlohmann::json& tier : json.at("tiers")) {
      known.tiers.push_back({tier.at("name"), tier.at("directory")});
    }
    return known;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": ", error.what()));
  }
}

std::string ToJson(const KnownTiers& known) {
  nlohmann::json tiers = nlohmann::json::array();
  for (const TierDirectory& tier : known.tiers) {
    tiers.push_back({{"name", tier.name}, {"directory", tier.directory}});
  }
  return nlohmann::json{{"key", known.key}, {"tiers", tiers}}.dump(2) + "\n";
}

// Rank 0.
absl::StatusOr<KnownTiers> Claim(FileSystem& files, const std::string& directory,
                                 const std::vector<TierDirectory>& bases) {
  absl::StatusOr<KnownTiers> known = ReadKnown(files, directory);
  if (!known.ok()) return known;
  if (known->key.empty()) {
    std::random_device random;
    known->key = absl::StrFormat("%08x%08x", random(), random());
  }
  bool added = false;
  for (const TierDirectory& base : bases) {
    const TierDirectory tier{
        base.name, JoinPath(base.directory, absl::StrCat("longspan-", getuid(), "-", known->key))};
    bool there = false;
    for (const TierDirectory& other : known->tiers) {
      there |= other.name == tier.name && other.directory == tier.directory;
    }
    if (!there) {
      known->tiers.push_back(tier);
      added = true;
    }
  }
  if (added) {
    if (absl::Status status = ReplaceDurably(files, directory, kTiersName, ToJson(*known));
        !status.ok()) {
      return status;
    }
  }
  return known;
}

}  // namespace

absl::StatusOr<std::vector<int>> NodesByHost(Transport& transport) {
  absl::StatusOr<std::vector<std::string>> hosts = transport.AllGatherBytes(HostName());
  if (!hosts.ok()) return hosts.status();
  std::map<std::string, int> index;
  std::vector<int> nodes;
  for (const std::string& host : *hosts) {
    nodes.push_back(index.try_emplace(host, static_cast<int>(index.size())).first->second);
  }
  return nodes;
}

absl::StatusOr<std::vector<TierDirectory>> ClaimTiers(FileSystem& files,
                                                      const std::string& checkpoint_directory,
                                                      const std::vector<TierDirectory>& bases,
                                                      Transport& transport) {
  absl::Status mine;
  KnownTiers known;
  if (transport.rank() == 0) {
    absl::StatusOr<KnownTiers> claimed = Claim(files, checkpoint_directory, bases);
    mine = claimed.status();
    if (claimed.ok()) known = *std::move(claimed);
  }
  absl::StatusOr<std::vector<std::string>> votes = Vote(transport, "claim tiers", mine, known.key);
  if (!votes.ok()) return votes.status();
  std::vector<TierDirectory> claimed;
  for (const TierDirectory& base : bases) {
    claimed.push_back({base.name, JoinPath(base.directory, absl::StrCat("longspan-", getuid(), "-",
                                                                        votes->front()))});
  }
  return claimed;
}

absl::StatusOr<std::vector<TierDirectory>> ReadTiers(FileSystem& files,
                                                     const std::string& checkpoint_directory) {
  absl::StatusOr<KnownTiers> known = ReadKnown(files, checkpoint_directory);
  if (!known.ok()) return known.status();
  return known->tiers;
}

double CopiesKept(const TierOptions& options) {
  if (options.partner) return 2;
  if (options.erasure.off()) return 1;
  const absl::StatusOr<std::vector<ErasureGroup>> groups =
      ErasureGroups(options.erasure, options.nodes, std::vector<int64_t>(options.nodes.size(), 1));
  double most = 1;
  if (!groups.ok()) return most;
  for (const ErasureGroup& group : *groups) {
    most = std::max(most, 1 + static_cast<double>(group.layout.parity) / group.layout.data);
  }
  return most;
}

absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> OpenTier(
    FileSystem& files, const CheckpointOptions& options, int64_t generation, TierOptions tier,
    LazyOptions lazy, std::vector<StateRegion> regions, MemoryTable& memory, Transport& transport) {
  CheckpointOptions here = options;
  here.directory = tier.tier.directory;
  here.keep_last = tier.keep_last;
  here.keep_every = tier.keep_every;
  absl::Status mine;
  if (tier.keep_last < 1) mine = absl::InvalidArgumentError("keep_last is below 1");
  if (tier.keep_every < 0) mine = absl::InvalidArgumentError("keep_every is negative");
  if (static_cast<int>(tier.nodes.size()) != transport.size()) {
    mine = absl::InvalidArgumentError("nodes: one for every rank");
  }
  if (mine.ok() && !tier.erasure.off()) {
    if (tier.partner) {
      mine = absl::InvalidArgumentError("both a partner and erasure are asked for: choose one");
    } else {
      // What the sizes of files are does not matter for this.
      mine = ErasureGroups(tier.erasure, tier.nodes, std::vector<int64_t>(tier.nodes.size(), 1))
                 .status();
    }
  }
  if (mine.ok()) {
    mine = files.CreateDirectory(here.directory);  // by the first rank of the node
    if (absl::IsAlreadyExists(mine)) mine = absl::OkStatus();
  }
  if (mine.ok()) mine = files.SyncDirectory(ParentPath(here.directory));
  absl::StatusOr<std::vector<std::string>> votes =
      Vote(transport, absl::StrCat("directory of tier ", tier.tier.name), mine);
  if (!votes.ok()) {
    return absl::Status(
        votes.status().code(),
        absl::StrCat("checkpoints in tier \"", tier.tier.name, "\": ", votes.status().message()));
  }
  const absl::Duration timeout = lazy.timeout;
  return OpenLazyWriter(files, here, std::move(lazy), std::move(regions), memory, transport,
                        generation, [&](const auto& file_bytes, const auto& stop) {
                          return MakeNodeSteps(files, here, generation, tier, file_bytes, transport,
                                               timeout, stop);
                        });
}

absl::Status RemoveTier(FileSystem& files, const TierDirectory& tier) {
  absl::StatusOr<std::vector<std::string>> names = files.List(tier.directory);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (!ParseStepDirectoryName(name) && !ParseSpareDirectoryName(name)) continue;
    if (absl::Status status = DeleteStepDirectory(files, JoinPath(tier.directory, name));
        !status.ok()) {
      return status;
    }
  }
  absl::Status removed = files.Remove(tier.directory);
  return absl::IsNotFound(removed) ? absl::OkStatus() : removed;
}

}  // namespace longspan
