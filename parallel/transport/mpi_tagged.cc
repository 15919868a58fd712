#include "parallel/transport/mpi_tagged.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "parallel/transport/mpi_status.h"

namespace longspan {
namespace {
constexpr int kMessageTag = 0;
}  // namespace

MpiTagged::~MpiTagged() {
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  const std::lock_guard lock(mutex_);
  PollPause pause;
  while (true) {
    ForgetSent();
    if (sent_.empty()) return;
    if (absl::Now() > deadline) break;
    pause.Pause();
  }
  // MPI still reads these texts: they stay until the process ends.
  for (Sent& sent : sent_) MPI_Request_free(&sent.request);
  new std::list<Sent>(std::move(sent_));
}

void MpiTagged::ForgetSent() {
  for (auto sent = sent_.begin(); sent != sent_.end();) {
    int done = 0;
    const int code = MPI_Test(&sent->request, &done, MPI_STATUS_IGNORE);
    sent = code != MPI_SUCCESS || done ? sent_.erase(sent) : std::next(sent);
  }
}

absl::Status MpiTagged::Fetch() {
  while (true) {
    int found = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status;
    LONGSPAN_MPI_RETURN_IF_ERROR(
        MPI_Improbe(MPI_ANY_SOURCE, kMessageTag, communicator_, &found, &message, &status));
    if (!found) return absl::OkStatus();
    int count = 0;
    MPI_Get_count(&status, MPI_BYTE, &count);
    std::string text(static_cast<size_t>(count), '\0');
    LONGSPAN_MPI_RETURN_IF_ERROR(
        MPI_Mrecv(text.data(), count, MPI_BYTE, &message, MPI_STATUS_IGNORE));
    uint64_t tag_bytes = 0;
    std::memcpy(&tag_bytes, text.data(), sizeof(tag_bytes));
    arrived_.Add(status.MPI_SOURCE, std::string_view(text).substr(sizeof(tag_bytes), tag_bytes),
                 text.substr(sizeof(tag_bytes) + tag_bytes));
  }
}

absl::Status MpiTagged::Send(int peer, std::string_view tag, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  ForgetSent();
  if (peer == rank_) {
    arrived_.Add(rank_, tag, std::string(bytes));
    return absl::OkStatus();
  }
  const uint64_t tag_bytes = tag.size();
  std::string text(reinterpret_cast<const char*>(&tag_bytes), sizeof(tag_bytes));
  text.append(tag).append(bytes);
  if (text.size() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return absl::InvalidArgumentError("a tagged message is longer than 2 GiB");
  }
  Sent& sent = sent_.emplace_back(Sent{std::move(text)});
  const int code = MPI_Isend(sent.text.data(), static_cast<int>(sent.text.size()), MPI_BYTE, peer,
                             kMessageTag, communicator_, &sent.request);
  if (code != MPI_SUCCESS) sent_.pop_back();
  return MpiStatus(code, "MPI_Isend", rank_);
}

absl::StatusOr<std::string> MpiTagged::Receive(int peer, std::string_view tag,
                                               absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  PollPause pause;
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      ForgetSent();
      if (absl::Status status = Fetch(); !status.ok()) return status;
      if (std::optional<std::string> bytes = arrived_.Take(peer, tag)) return *std::move(bytes);
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("nothing from rank ", peer, " within ", absl::FormatDuration(timeout)));
    }
    pause.Pause();
  }
}

void MpiTagged::Drop(std::string_view prefix) {
  const std::lock_guard lock(mutex_);
  // An MPI that fails here fails again, and is heard, at the next receive.
  Fetch().IgnoreError();
  arrived_.Drop(prefix);
}

}  // namespace longspan
