#include "kill_point.h"

#include <signal.h>
#include <unistd.h>

#include <sstream>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

constexpr const char* kWhen[] = {"never", "before", "halfway", "after"};

[[noreturn]] void Die() {
  kill(getpid(), SIGKILL);
  while (true) pause();
}

}  // namespace

std::string KillPoint::text() const {
  return absl::StrCat(kWhen[when], " ", nth, " of rank ", rank, ": ", label);
}

bool KillPoint::Parse(const std::string& text, KillPoint& point) {
  std::istringstream in(text);
  std::string when, of, word;
  if (!(in >> when >> point.nth >> of >> word >> point.rank) || in.get() != ':') return false;
  in.get();
  std::getline(in, point.label);
  for (int i = 0; i < 4; ++i) {
    if (when == kWhen[i]) {
      point.when = static_cast<KillPoint::When>(i);
      return true;
    }
  }
  return false;
}

std::vector<KillPoint> AllKillPoints(const std::vector<std::vector<std::string>>& labels_by_rank) {
  std::vector<KillPoint> points;
  for (size_t rank = 0; rank < labels_by_rank.size(); ++rank) {
    std::map<std::string, int64_t> occurrences;
    for (const std::string& label : labels_by_rank[rank]) {
      const int64_t nth = ++occurrences[label];
      for (const auto when : {KillPoint::kBefore, KillPoint::kHalfway, KillPoint::kAfter}) {
        if (when == KillPoint::kHalfway && label.rfind("write ", 0) != 0) continue;
        points.push_back({when, static_cast<int>(rank), label, nth});
      }
    }
  }
  return points;
}

OperationWatcher::Verdict KillWatcher::Before(const FileOperation& operation) {
  if (seen_) seen_(operation);
  if (rank_ != point_.rank || point_.when == KillPoint::kNever) return {};
  if (!point_.label.empty() && operation.label() != point_.label) return {};
  if (++before_ != point_.nth) return {};
  if (point_.when == KillPoint::kBefore) Die();
  if (point_.when == KillPoint::kHalfway) {
    // After() is told once these bytes are there.
    return {absl::CancelledError("the process dies"), operation.bytes / 2};
  }
  return {};
}

void KillWatcher::After(const FileOperation& operation) {
  if (rank_ != point_.rank || point_.when == KillPoint::kNever) return;
  if (!point_.label.empty() && operation.label() != point_.label) return;
  if (++after_ == point_.nth && point_.when != KillPoint::kBefore) Die();
}

}  // namespace longspan
