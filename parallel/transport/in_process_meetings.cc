#include "parallel/transport/in_process_meetings.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace longspan {

InProcessMeetings::InProcessMeetings(int ranks) : ranks_(ranks), gone_(ranks, false) {}

absl::Status InProcessMeetings::Obstacle(const Meeting& meeting) const {
  if (!failure_.ok()) return failure_;
  for (int rank = 0; rank < ranks_; ++rank) {
    if (gone_[rank] && !meeting.here[rank]) {
      return absl::UnavailableError(absl::StrCat("rank ", rank, " has left the job"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const std::vector<InProcessMeetings::Arrival>>>
InProcessMeetings::Meet(int rank, const Key& key, Arrival arrival) {
  std::unique_lock lock(mutex_);
  const std::string purpose = arrival.purpose;
  std::shared_ptr<Meeting>& entry = open_[key];
  if (entry == nullptr) {
    entry = std::make_shared<Meeting>();
    entry->arrivals = std::make_shared<std::vector<Arrival>>(ranks_);
    entry->here.resize(ranks_);
  }
  const std::shared_ptr<Meeting> meeting = entry;
  (*meeting->arrivals)[rank] = std::move(arrival);
  meeting->here[rank] = true;
  if (++meeting->count == ranks_) {
    open_.erase(key);
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return meeting->count == ranks_ || !Obstacle(*meeting).ok(); });
  if (meeting->count < ranks_) {
    const absl::Status obstacle = Obstacle(*meeting);
    return absl::Status(obstacle.code(),
                        absl::StrCat(purpose, ": ", std::string(obstacle.message())));
  }
  const std::vector<Arrival>& arrivals = *meeting->arrivals;
  for (int other = 1; other < ranks_; ++other) {
    if (arrivals[other].purpose == arrivals[0].purpose) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("the ranks disagree about collective call ", key.call, ": rank 0 is in ",
                     arrivals[0].purpose, ", rank ", other, " in ", arrivals[other].purpose));
  }
  return std::shared_ptr<const std::vector<Arrival>>(meeting->arrivals);
}

void InProcessMeetings::Fail(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  failure_.Update(status);
  changed_.notify_all();
}

void InProcessMeetings::Leave(int rank) {
  std::lock_guard lock(mutex_);
  gone_[rank] = true;
  changed_.notify_all();
}

std::string InProcessMeetings::Describe(int rank) const {
  std::lock_guard lock(mutex_);
  std::string text;
  for (const auto& [key, meeting] : open_) {
    if (!meeting->here[rank]) continue;
    absl::StrAppend(&text, text.empty() ? "in " : "; in ", (*meeting->arrivals)[rank].purpose,
                    " without rank");
    for (int other = 0; other < ranks_; ++other) {
      if (!meeting->here[other]) absl::StrAppend(&text, " ", other);
    }
  }
  return text;
}

}  // namespace longspan
