#include "checkpoint/node_steps.h"

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/commit.h"
#include "checkpoint/erasure_groups.h"
#include "checkpoint/parity_partners.h"
#include "checkpoint/partner_copies.h"
#include "checkpoint/retention.h"
#include "checkpoint/spare_files.h"

namespace longspan {
namespace {

// The first byte of what the leader of a node says of the records; lines follow.
constexpr char kKept = '+', kNotKept = '-';

// Manifest and commit record in one message.
std::string Pack(const StepRecords& records) {
  return absl::StrCat(records.manifest.size(), "\n", records.manifest, records.commit);
}

absl::StatusOr<StepRecords> Unpack(const std::string& text) {
  const size_t line = text.find('\n');
  if (line == std::string::npos) return absl::InternalError("no records came with the commit");
  const size_t bytes = std::stoull(text.substr(0, line));
  StepRecords records;
  records.manifest = text.substr(line + 1, bytes);
  records.commit = text.substr(line + 1 + bytes);
  return records;
}

class NodeSteps : public StepProtocol {
 public:
  NodeSteps(FileSystem& files, CheckpointOptions options, int64_t generation,
            const TierOptions& tier, const std::vector<int64_t>& file_bytes, Transport& transport,
            absl::Duration timeout, const std::atomic<bool>& stop)
      : files_(files),
        options_(std::move(options)),
        generation_(generation),
        name_(tier.tier.name),
        leaders_(NodeLeaders(tier.nodes)),
        transport_(transport),
        timeout_(timeout),
        stop_(stop) {
    if (tier.partner) {
      partners_ = std::make_unique<PartnerCopies>(files_, transport_, PartnersOf(tier.nodes),
                                                  timeout_, stop_);
    }
    if (!tier.erasure.off()) {
      partners_ = std::make_unique<ParityPartners>(
          files_, transport_, options_.run_id, *ErasureGroups(tier.erasure, tier.nodes, file_bytes),
          timeout_, stop_);
    }
  }

  ~NodeSteps() override {
    if (node_leader()) RemoveSpare(files_, options_.directory, generation_).IgnoreError();
  }

  std::string name() const override { return name_; }

  absl::Status Begin(SavedStep& step, const absl::Status& mine) override {
    absl::Status status =
        AgreeOnMetadata(VoteOf(step, "directory"), rank() == 0, step.metadata, mine);
    // Every rank of the node tries: the first one makes it.
    if (status.ok()) {
      status = files_.CreateDirectory(step.directory);
      if (absl::IsAlreadyExists(status)) status = absl::OkStatus();
      if (status.ok()) status = files_.SyncDirectory(options_.directory);
    }
    if (partners_) partners_->Expect(step, status);
    return status;
  }

  absl::Status Piece(const SavedStep& step, int64_t piece, const char* data, int64_t bytes,
                     int64_t file_bytes) override {
    return partners_ ? partners_->Send(step, piece, data, bytes, file_bytes) : absl::OkStatus();
  }

  absl::Status EndFile(const SavedStep& step, const absl::Status& mine) override {
    return partners_ ? partners_->EndFile(step, mine) : mine;
  }

  absl::StatusOr<std::string> Commit(const SavedStep& step, const absl::Status& mine,
                                     const std::string& contribution) override {
    kept_ = false;
    absl::Status status = mine;
    if (partners_) {
      const absl::Status kept = partners_->Await(step);
      status.Update(kept);
    }
    return rank() == 0 ? Decide(step, status, contribution) : Follow(step, status, contribution);
  }

  absl::StatusOr<std::string> Finish(const SavedStep& step, const absl::Status& outcome) override {
    std::string lines;
    if (outcome.ok() && kept_) {
      for (const std::string& line : ApplyNodeRetention(files_, options_, step.name)) {
        absl::StrAppend(&lines, line, "\n");
      }
    }
    BackgroundVote removed = VoteOf(step, "removed"), finished = VoteOf(step, "finished");
    if (rank() != 0) {
      // Rank 0 may wait for this, whatever this rank heard of the step.
      removed.TellLeader(absl::OkStatus(), lines);
      if (!outcome.ok()) return "";
      return finished.Hear();
    }
    if (!outcome.ok()) return "";
    const absl::StatusOr<std::vector<std::string>> all = removed.Collect(absl::OkStatus(), lines);
    if (all.ok()) lines = absl::StrJoin(*all, "");
    finished.Tell(all.status(), lines);
    if (!all.ok()) return all.status();
    return lines;
  }

 private:
  int rank() const { return transport_.rank(); }
  bool node_leader() const { return leaders_[rank()] == rank(); }

  absl::StatusOr<std::string> Decide(const SavedStep& step, const absl::Status& mine,
                                     const std::string& contribution) {
    absl::StatusOr<std::vector<std::string>> parts =
        VoteOf(step, "file").Collect(mine, contribution);
    absl::Status status = parts.status();
    StepRecords records;
    if (parts.ok()) {
      const uint64_t* refused = step.changed && last_hash_.has_value() ? &*last_hash_ : nullptr;
      absl::StatusOr<StepRecords> joined =
          JoinStep(options_, step.name, *parts, step.metadata, refused);
      status = joined.status();
      if (joined.ok()) records = *std::move(joined);
    }
    BackgroundVote outcome = VoteOf(step, "outcome");
    const std::string packed = status.ok() ? Pack(records) : "";
    for (int other = 1; other < transport_.size(); ++other) {
      outcome.TellRank(other, status, leaders_[other] == other ? packed : "");
    }
    if (!status.ok()) {
      Remove(step, status);
      return status;
    }
    last_hash_ = records.state_hash;
    // One node with the records makes the step count. What others could not write is told.
    const absl::Status kept = Keep(step, records);
    bool counts = kept.ok();
    std::string lines = kept.ok() ? "" : NotKept(step, kept);
    const absl::StatusOr<std::vector<std::string>> others =
        VoteOf(step, "kept").Collect(absl::OkStatus(), "");
    if (others.ok()) {
      for (const std::string& each : *others) {
        if (each.empty()) continue;
        counts = counts || each[0] == kKept;
        lines += each.substr(1);
      }
    } else {
      absl::StrAppend(&lines, "not every node has said whether it has the commit record of ",
                      step.directory, ": ", others.status().message(), "\n");
    }
    status = counts ? absl::OkStatus() : kept;
    VoteOf(step, "counts").Tell(status, lines);
    if (counts) return lines;
    if (others.ok()) Remove(step, status);
    return status;
  }

  absl::StatusOr<std::string> Follow(const SavedStep& step, const absl::Status& mine,
                                     const std::string& contribution) {
    VoteOf(step, "file").TellLeader(mine, contribution);
    absl::StatusOr<std::string> packed = VoteOf(step, "outcome").Hear();
    if (!packed.ok()) {
      Remove(step, packed.status());
      return packed.status();
    }
    std::string text;
    if (node_leader()) {
      absl::StatusOr<StepRecords> records = Unpack(*packed);
      const absl::Status kept = records.ok() ? Keep(step, *records) : records.status();
      text = kept.ok() ? std::string(1, kKept)
                       : absl::StrCat(std::string(1, kNotKept), NotKept(step, kept));
    }
    VoteOf(step, "kept").TellLeader(absl::OkStatus(), text);
    absl::StatusOr<std::string> counts = VoteOf(step, "counts").Hear();
    if (!counts.ok()) Remove(step, counts.status());
    return counts;
  }

  static std::string NotKept(const SavedStep& step, const absl::Status& status) {
    return absl::StrCat("a node does not have the commit record of ", step.directory, ": ",
                        status.message(), "\n");
  }

  // Node leaders: writes the records.
  absl::Status Keep(const SavedStep& step, const StepRecords& records) {
    if (absl::Status status =
            CreateDurably(files_, step.directory, kManifestName, records.manifest);
        !status.ok()) {
      return status;
    }
    const absl::Status status = ReplaceDurably(files_, step.directory, kCommitName, records.commit);
    kept_ = status.ok();
    return status;
  }

  // After a failure: memory, above all, is wanted back.
  void Remove(const SavedStep& step, const absl::Status& failure) {
    if (node_leader() && EveryRankIsThrough(failure)) {
      RemoveFailedStep(files_, options_, step.name);
    }
  }

  BackgroundVote VoteOf(const SavedStep& step, const char* phase) {
    return BackgroundVote(transport_, absl::StrCat(step.tag, phase), timeout_, stop_);
  }

  FileSystem& files_;
  const CheckpointOptions options_;
  const int64_t generation_;
  const std::string name_;
  const std::vector<int> leaders_;
  Transport& transport_;
  const absl::Duration timeout_;
  const std::atomic<bool>& stop_;
  std::unique_ptr<Partners> partners_;  // none: a lost node's files are lost
  std::optional<uint64_t> last_hash_;   // the committer's, on rank 0
  bool kept_ = false;  // the committer's: this rank has written the records of its step
};

}  // namespace

std::vector<int> NodeLeaders(const std::vector<int>& nodes) {
  std::vector<int> leaders(nodes.size());
  std::map<int, int> first;  // rank of each node
  for (size_t rank = 0; rank < nodes.size(); ++rank) {
    leaders[rank] = first.try_emplace(nodes[rank], static_cast<int>(rank)).first->second;
  }
  return leaders;
}

std::unique_ptr<StepProtocol> MakeNodeSteps(FileSystem& files, CheckpointOptions options,
                                            int64_t generation, const TierOptions& tier,
                                            const std::vector<int64_t>& file_bytes,
                                            Transport& transport, absl::Duration timeout,
                                            const std::atomic<bool>& stop) {
  return std::make_unique<NodeSteps>(files, std::move(options), generation, tier, file_bytes,
                                     transport, timeout, stop);
}

}  // namespace longspan
