#include "tier_cluster.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "sharded_state.h"

namespace longspan {
namespace {

SnapshotRequest RequestOf(int64_t step) {
  return {step, [step] { return StateMetadata(step); }, Event(), true};
}

}  // namespace

RankThreadOptions Patience() {
  RankThreadOptions options;
  options.timeout = absl::Seconds(100);
  return options;
}

CheckpointOptions TierCluster::Shared() const {
  CheckpointOptions options;
  options.directory = scratch_ / "shared";
  options.run_id = "tiers";
  options.keep_last = 100;
  return options;
}

std::string TierCluster::NodePath(int node) const { return scratch_ / absl::StrCat("node", node); }

std::vector<std::vector<absl::Status>> TierCluster::Save(const Job& job) {
  const auto ranks = static_cast<int>(job.nodes.size());
  const int holders = job.holders > 0 ? job.holders : ranks;
  for (const int node : job.nodes) std::filesystem::create_directories(NodePath(node));
  std::vector<std::vector<absl::Status>> ends(ranks);
  const absl::Status ran = RunRanks(
      ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        const int rank = transport.rank();
        const bool holds = rank < holders;
        ShardedState state(holds ? rank : 0, holders, 0, scale_);
        const std::vector<StateRegion> regions =
            holds ? state.regions() : std::vector<StateRegion>();
        LazyOptions lazy;
        lazy.timeout = absl::Seconds(20);
        auto shared = LazyCheckpointWriter::Open(PosixFileSystem(), Shared(), lazy, regions,
                                                 device.memory(), transport);
        if (!shared.ok()) return shared.status();
        TierOptions options;
        options.tier = Tier(job.nodes[rank]);
        options.keep_last = job.keep_last;
        options.keep_every = job.keep_every;
        options.partner = job.partner;
        options.erasure = job.erasure;
        options.nodes = job.nodes;
        auto tier = OpenTier(*job.files, Shared(), (*shared)->generation(), options, lazy, regions,
                             device.memory(), transport);
        if (!tier.ok()) return tier.status();
        std::vector<int64_t> steps = job.steps;
        steps.insert(steps.end(), job.shared_steps.begin(), job.shared_steps.end());
        std::sort(steps.begin(), steps.end());
        steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
        for (const int64_t step : steps) {
          const ShardedState now(holds ? rank : 0, holders, step, scale_);
          for (size_t i = 0; i < regions.size(); ++i) {
            const StateRegion& to = regions[i];
            const auto bytes = (to.flat_end - to.flat_begin) * SizeOf(to.dtype);
            if (bytes > 0) std::memcpy(to.data, now.regions()[i].data, bytes);
          }
          for (const bool shares : {false, true}) {
            const std::vector<int64_t>& wanted = shares ? job.shared_steps : job.steps;
            if (!std::count(wanted.begin(), wanted.end(), step)) continue;
            LazyCheckpointWriter& writer = shares ? **shared : **tier;
            for (const Event& gate : writer.Snapshot(RequestOf(step))) {
              if (absl::Status status = gate.Wait(); !status.ok()) return status;
            }
          }
        }
        (*shared)->Drain();
        (*tier)->Drain();
        for (const FinishedSave& save : (*shared)->TakeFinished()) {
          if (!save.status.ok()) return save.status;
        }
        for (const FinishedSave& save : (*tier)->TakeFinished()) {
          ends[rank].push_back(save.status);
          for (const std::string& line : save.report.warnings) {
            if (job.warnings == nullptr) {
              ADD_FAILURE() << line;
            } else {
              (*job.warnings)[rank].push_back(line);
            }
          }
        }
        return absl::OkStatus();
      },
      Patience());
  EXPECT_TRUE(ran.ok()) << ran;
  return ends;
}

TierCluster::Outcome TierCluster::Restore(const std::vector<int>& nodes) {
  const auto ranks = static_cast<int>(nodes.size());
  Outcome outcome;
  std::mutex mutex;
  const absl::Status ran = RunRanks(
      ranks,
      [&](Transport& transport, Device&) -> absl::Status {
        const int rank = transport.rank();
        auto found = FindCheckpoints(PosixFileSystem(), Shared().directory, {Tier(nodes[rank])},
                                     nodes, transport);
        if (!found.ok()) return found.status();
        if (found->empty()) return absl::NotFoundError("nothing found");
        absl::Status failure;
        std::vector<std::string> notes;
        auto restore = TieredRestore::Open(PosixFileSystem(), found->front(), nodes, transport);
        failure = restore.status();
        if (restore.ok()) {
          EXPECT_EQ((*restore)->info().metadata, StateMetadata(found->front().step));
          ShardedState state(rank, ranks, 0, scale_);
          state.Clear();
          failure = (*restore)->Restore(state.regions(), &notes);
          if (failure.ok()) {
            EXPECT_EQ(state.DifferenceFrom(found->front().step), "");
          }
        }
        const std::lock_guard lock(mutex);
        outcome.status = failure;
        outcome.step = found->front().step;
        outcome.where = found->front().where();
        for (const std::string& line : notes) outcome.notes.push_back(line);
        if (rank == 0) {
          for (const FoundCheckpoint& each : *found) outcome.found.push_back(each.step);
        }
        return absl::OkStatus();
      },
      Patience());
  if (!ran.ok()) outcome.status = ran;
  return outcome;
}

void TierCluster::ExpectAllOk(const std::vector<std::vector<absl::Status>>& ends, size_t saves) {
  for (const auto& rank : ends) {
    EXPECT_EQ(rank.size(), saves);
    for (const absl::Status& status : rank) EXPECT_TRUE(status.ok()) << status;
  }
}

std::string TierCluster::StepPath(int node, int64_t step, int generation) const {
  return absl::StrCat(Tier(node).directory, "/step-0000000", step, ".g000", generation);
}

void TierCluster::LoseNode(int node) { std::filesystem::remove_all(NodePath(node)); }

void TierCluster::LoseAll() {
  for (const auto& entry : std::filesystem::directory_iterator(scratch_.path())) {
    std::filesystem::remove_all(entry.path());
  }
}

void FlipByte(const std::string& path, int64_t at) {
  if (at < 0) at += static_cast<int64_t>(std::filesystem::file_size(path));
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  ASSERT_TRUE(file.good()) << path;
  file.seekg(at);
  const auto byte = static_cast<char>(file.get() ^ 1);
  file.seekp(at);
  file.put(byte);
}

OperationWatcher::Verdict RefuseOnce::Before(const FileOperation& operation) {
  const bool hit = std::string(operation.kind) == "write" &&
                   operation.path.find(part_) != std::string::npos && left_.fetch_sub(1) == 1;
  if (hit) return {absl::ResourceExhaustedError("write: no space left on device")};
  return {};
}

}  // namespace longspan
