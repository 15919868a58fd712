#include "faulty_transport.h"

#include "absl/strings/str_cat.h"

namespace longspan {

FaultyTransport::~FaultyTransport() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  postman_.join();
}

absl::Status FaultyTransport::SendTagged(int peer, std::string_view tag, std::string_view bytes) {
  // "checkpoint generation 1 step 2 attempt 1: outcome"
  const size_t colon = tag.rfind(": ");
  const std::string phase(colon == std::string_view::npos ? tag : tag.substr(colon + 2));
  if (!before_send_(absl::StrCat("send ", phase))) return absl::OkStatus();
  if (delay_.count() == 0) return inner().SendTagged(peer, tag, bytes);
  const std::lock_guard lock(mutex_);
  const auto late = std::chrono::microseconds(
      random_() % static_cast<uint64_t>(std::chrono::microseconds(delay_).count()));
  letters_.emplace(std::chrono::steady_clock::now() + late,
                   Letter{peer, std::string(tag), std::string(bytes)});
  changed_.notify_all();
  return absl::OkStatus();
}

void FaultyTransport::Deliver() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (letters_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const auto due = letters_.begin()->first;
    if (std::chrono::steady_clock::now() < due) {
      changed_.wait_until(lock, due);
      continue;
    }
    const Letter letter = std::move(letters_.begin()->second);
    letters_.erase(letters_.begin());
    lock.unlock();
    inner().SendTagged(letter.peer, letter.tag, letter.bytes).IgnoreError();
    lock.lock();
  }
}

}  // namespace longspan
