// Steps in one directory that all ranks share: rank 0 makes the step directory and commits.
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checksum.h"
#include "checkpoint/commit.h"
#include "checkpoint/manifest.h"
#include "checkpoint/spare_files.h"
#include "checkpoint/step_protocol.h"

namespace longspan {
namespace {

class SharedSteps : public StepProtocol {
 public:
  SharedSteps(FileSystem& files, CheckpointOptions options, int64_t generation,
              Transport& transport, absl::Duration timeout, const std::atomic<bool>& stop)
      : files_(files),
        options_(std::move(options)),
        generation_(generation),
        transport_(transport),
        timeout_(timeout),
        stop_(stop) {}
  ~SharedSteps() override {
    if (leader()) RemoveSpare(files_, options_.directory, generation_).IgnoreError();
  }

  absl::Status Begin(SavedStep& step, const absl::Status& mine) override {
    {
      const std::lock_guard lock(mutex_);
      under_way_.insert(step.directory);
    }
    absl::Status status = mine;
    if (leader() && status.ok()) {
      status = MakeStepDirectory(files_, options_, step.name);
      step.made_directory = status.ok();
    }
    return AgreeOnMetadata(VoteOf(step, "directory"), leader(), step.metadata, status);
  }

  absl::StatusOr<std::string> Commit(const SavedStep& step, const absl::Status& mine,
                                     const std::string& contribution) override {
    absl::StatusOr<std::string> lines =
        leader() ? Decide(step, mine, contribution) : AskLeader(step, mine, contribution);
    const std::lock_guard lock(mutex_);
    under_way_.erase(step.directory);
    return lines;
  }

  absl::StatusOr<std::string> Finish(const SavedStep& step, const absl::Status& outcome) override {
    if (!outcome.ok()) return "";
    BackgroundVote finished = VoteOf(step, "finished");
    if (!leader()) return finished.Hear();
    const auto under_way = [&](const std::string& directory) {
      const std::lock_guard lock(mutex_);
      return under_way_.count(directory) > 0;
    };
    std::string lines;
    for (const std::string& warning : FinishCommitted(files_, options_, step.name, under_way)) {
      absl::StrAppend(&lines, warning, "\n");
    }
    finished.Tell(absl::OkStatus(), lines);
    return lines;
  }

 private:
  bool leader() const { return transport_.rank() == 0; }

  absl::StatusOr<std::string> Decide(const SavedStep& step, const absl::Status& mine,
                                     const std::string& contribution) {
    absl::StatusOr<std::vector<std::string>> parts =
        VoteOf(step, "file").Collect(mine, contribution);
    absl::Status status = parts.status();
    if (parts.ok()) {
      const uint64_t* refused = step.changed && last_hash_.has_value() ? &*last_hash_ : nullptr;
      absl::StatusOr<uint64_t> hash =
          CommitStep(files_, options_, step.name, *parts, step.metadata, refused);
      status = hash.status();
      if (hash.ok()) last_hash_ = *hash;
    }
    if (EveryRankIsThrough(status) && step.made_directory)
      RemoveFailedStep(files_, options_, step.name);
    VoteOf(step, "outcome").Tell(status, "");
    if (!status.ok()) return status;
    return "";
  }

  absl::StatusOr<std::string> AskLeader(const SavedStep& step, const absl::Status& mine,
                                        const std::string& contribution) {
    VoteOf(step, "file").TellLeader(mine, contribution);
    return VoteOf(step, "outcome").Hear();
  }

  BackgroundVote VoteOf(const SavedStep& step, const char* phase) {
    return BackgroundVote(transport_, absl::StrCat(step.tag, phase), timeout_, stop_);
  }

  FileSystem& files_;
  const CheckpointOptions options_;
  const int64_t generation_;
  Transport& transport_;
  const absl::Duration timeout_;
  const std::atomic<bool>& stop_;
  std::mutex mutex_;
  std::set<std::string> under_way_;    // step directories
  std::optional<uint64_t> last_hash_;  // the committer's
};

}  // namespace

absl::Status AgreeOnMetadata(BackgroundVote vote, bool leader, const std::string& metadata,
                             const absl::Status& mine) {
  const std::string hash =
      Hex64(ExtendCrc64(0, metadata.data(), static_cast<int64_t>(metadata.size())));
  if (leader) {
    vote.Tell(mine, hash);
    return mine;
  }
  absl::StatusOr<std::string> theirs = vote.Hear();
  if (!theirs.ok()) return theirs.status();
  if (mine.ok() && *theirs != hash) {
    return absl::InternalError(
        "ranks 0 and this one captured different metadata; every rank saves the same step");
  }
  return mine;
}

bool EveryRankIsThrough(const absl::Status& failure) {
  return !failure.ok() && !absl::IsUnavailable(failure) && !absl::IsDeadlineExceeded(failure) &&
         !absl::IsCancelled(failure);
}

std::unique_ptr<StepProtocol> MakeSharedSteps(FileSystem& files, CheckpointOptions options,
                                              int64_t generation, Transport& transport,
                                              absl::Duration timeout,
                                              const std::atomic<bool>& stop) {
  return std::make_unique<SharedSteps>(files, std::move(options), generation, transport, timeout,
                                       stop);
}

}  // namespace longspan
