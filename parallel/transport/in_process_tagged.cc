#include "parallel/transport/in_process_tagged.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"

namespace longspan {

absl::Status InProcessTagged::Send(int source, int destination, std::string_view tag,
                                   std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  if (!failure_.ok()) return failure_;
  if (gone_[destination]) {
    return absl::UnavailableError(absl::StrCat("rank ", destination, " has left the job"));
  }
  arrived_[destination].Add(source, tag, std::string(bytes));
  changed_.notify_all();
  return absl::OkStatus();
}

absl::StatusOr<std::string> InProcessTagged::Receive(int rank, int source, std::string_view tag,
                                                     absl::Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() +
                        absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24 * 365)));
  std::unique_lock lock(mutex_);
  while (true) {
    if (!failure_.ok()) return failure_;
    if (std::optional<std::string> bytes = arrived_[rank].Take(source, tag)) return *bytes;
    if (gone_[source]) {
      return absl::UnavailableError(absl::StrCat("rank ", source, " has left the job"));
    }
    if (changed_.wait_until(lock, deadline) == std::cv_status::timeout &&
        std::chrono::steady_clock::now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("nothing from rank ", source, " within ", absl::FormatDuration(timeout)));
    }
  }
}

void InProcessTagged::Drop(int rank, std::string_view prefix) {
  const std::lock_guard lock(mutex_);
  arrived_[rank].Drop(prefix);
}

void InProcessTagged::Fail(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (failure_.ok()) failure_ = status;
  changed_.notify_all();
}

void InProcessTagged::Leave(int rank) {
  const std::lock_guard lock(mutex_);
  gone_[rank] = true;
  changed_.notify_all();
}

}  // namespace longspan
