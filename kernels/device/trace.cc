#include "kernels/device/trace.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

namespace longspan {
namespace {

constexpr size_t kChunkEvents = 4096;
constexpr int64_t kShortestNs = 1000;

}  // namespace

const char* Name(TraceKind kind) {
  constexpr const char* kNames[kTraceKinds] = {"kernel",    "task",   "ring",       "wait",
                                               "transfer",  "step",   "data",       "plan",
                                               "reduction", "update", "evaluation", "checkpoint"};
  return kNames[static_cast<int>(kind)];
}

TraceLabel TraceLabel::Within(const TraceLabel& outer) const {
  TraceLabel merged = *this;
  if (merged.step < 0) merged.step = outer.step;
  if (merged.micro_batch < 0) merged.micro_batch = outer.micro_batch;
  if (merged.layer < 0) merged.layer = outer.layer;
  if (merged.ring_step < 0) merged.ring_step = outer.ring_step;
  return merged;
}

int64_t TraceClock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

TraceRecorder::TraceRecorder(int64_t max_events)
    : max_events_(max_events), rows_{"host", "planner", "transfers"} {}

int TraceRecorder::RowOf(const std::string& name) {
  std::lock_guard lock(mutex_);
  const auto found = std::find(rows_.begin(), rows_.end(), name);
  if (found != rows_.end()) return static_cast<int>(found - rows_.begin());
  rows_.push_back(name);
  return static_cast<int>(rows_.size()) - 1;
}

void TraceRecorder::Record(TraceLabel label, int row, int64_t begin_ns, int64_t end_ns) {
  if (!recording()) return;
  const bool kernel = label.kind == TraceKind::kKernel;
  if ((kernel || label.kind == TraceKind::kWait) && end_ns - begin_ns < kShortestNs) return;
  if (label.step < 0) label.step = step_.load(std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  if (events_ >= (kernel ? max_events_ / 4 * 3 : max_events_)) {
    ++dropped_;
    return;
  }
  if (chunks_.empty() || chunks_.back().size() == kChunkEvents) {
    chunks_.emplace_back().reserve(kChunkEvents);
  }
  chunks_.back().push_back({label, row, begin_ns, end_ns});
  ++events_;
}

std::vector<std::string> TraceRecorder::rows() const {
  std::lock_guard lock(mutex_);
  return rows_;
}

int64_t TraceRecorder::dropped() const {
  std::lock_guard lock(mutex_);
  return dropped_;
}

std::vector<TraceEvent> TraceRecorder::Take() {
  std::vector<std::vector<TraceEvent>> chunks;
  {
    std::lock_guard lock(mutex_);
    chunks.swap(chunks_);
    events_ = 0;
  }
  std::vector<TraceEvent> events;
  for (std::vector<TraceEvent>& chunk : chunks) {
    events.insert(events.end(), chunk.begin(), chunk.end());
    chunk = {};
  }
  return events;
}

}  // namespace longspan
