#include "checkpoint/background_vote.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "checkpoint/vote.h"

namespace longspan {
namespace {

// The code as one byte, then the payload; or host, newline and message.
std::string Ballot(const absl::Status& status, const std::string& payload) {
  std::string text(1, static_cast<char>(status.code()));
  if (status.ok()) return text + payload;
  absl::StrAppend(&text, HostName(), "\n", status.message());
  return text;
}

}  // namespace

void BackgroundVote::Tell(const absl::Status& status, const std::string& payload) {
  const std::string ballot = Ballot(status, payload);
  for (int rank = 1; rank < transport_.size(); ++rank) {
    transport_.SendTagged(rank, tag_, ballot).IgnoreError();
  }
}

void BackgroundVote::TellRank(int rank, const absl::Status& status, const std::string& payload) {
  transport_.SendTagged(rank, tag_, Ballot(status, payload)).IgnoreError();
}

void BackgroundVote::TellLeader(const absl::Status& status, const std::string& payload) {
  transport_.SendTagged(0, tag_, Ballot(status, payload)).IgnoreError();
}

absl::StatusOr<std::string> AwaitTagged(Transport& transport, int rank, const std::string& tag,
                                        absl::Duration timeout, const std::atomic<bool>& stop) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    absl::StatusOr<std::string> text = transport.ReceiveTagged(
        rank, tag,
        std::clamp(deadline - absl::Now(), absl::ZeroDuration(), absl::Milliseconds(100)));
    if (!absl::IsDeadlineExceeded(text.status())) return text;
    if (stop.load()) return absl::CancelledError("the writer was stopped");
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("no answer from rank ", rank, " within ", absl::FormatDuration(timeout)));
    }
  }
}

absl::StatusOr<std::string> BackgroundVote::HearFrom(int rank, absl::Time deadline) {
  absl::StatusOr<std::string> text =
      AwaitTagged(transport_, rank, tag_, deadline - absl::Now(), stop_);
  if (text.ok() && text->empty()) return absl::InternalError("an empty ballot");
  if (absl::IsDeadlineExceeded(text.status())) {
    return absl::DeadlineExceededError(
        absl::StrCat("no answer from rank ", rank, " within ", absl::FormatDuration(timeout_)));
  }
  return text;
}

absl::StatusOr<std::string> BackgroundVote::Hear() {
  absl::StatusOr<std::string> text = HearFrom(0, absl::Now() + timeout_);
  if (!text.ok()) return text.status();
  const auto code = static_cast<absl::StatusCode>((*text)[0]);
  if (code == absl::StatusCode::kOk) return text->substr(1);
  return absl::Status(code, text->substr(text->find('\n') + 1));
}

absl::StatusOr<std::vector<std::string>> BackgroundVote::Collect(const absl::Status& mine,
                                                                 const std::string& payload) {
  const absl::Time deadline = absl::Now() + timeout_;
  std::vector<std::string> payloads = {payload};
  const auto of_rank = [](int rank, const std::string& host, const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat("rank ", rank, " on ", host, ": ", status.message()));
  };
  absl::Status failure;
  if (!mine.ok()) failure = of_rank(0, HostName(), mine);
  absl::Status missing;  // tells more than what any rank said: that one may still be at work
  for (int rank = 1; rank < transport_.size(); ++rank) {
    absl::StatusOr<std::string> text = HearFrom(rank, deadline);
    if (!text.ok()) {
      missing.Update(text.status());
      continue;
    }
    const auto code = static_cast<absl::StatusCode>((*text)[0]);
    if (code == absl::StatusCode::kOk) {
      payloads.push_back(text->substr(1));
    } else {
      const size_t line = text->find('\n');
      failure.Update(
          of_rank(rank, text->substr(1, line - 1), absl::Status(code, text->substr(line + 1))));
    }
  }
  if (!missing.ok()) return missing;
  if (!failure.ok()) return failure;
  return payloads;
}

}  // namespace longspan
