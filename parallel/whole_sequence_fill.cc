#include "parallel/whole_sequence_fill.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

namespace longspan {

WholeSequenceFill::WholeSequenceFill(const IntegerCostModel& cost, int64_t capacity,
                                     std::vector<PlanningTime> free_at)
    : cost_(cost),
      capacity_(capacity),
      free_at_(std::move(free_at)),
      rooms_(free_at_.size()),
      micro_batches_(free_at_.size(), 0) {}

void WholeSequenceFill::SinkTop() {
  const size_t size = heap_.size();
  const int rank = heap_[0];
  size_t hole = 0;
  for (size_t child = 1; child < size; child = 2 * hole + 1) {
    if (child + 1 < size && Before(heap_[child + 1], heap_[child])) ++child;
    if (!Before(heap_[child], rank)) break;
    heap_[hole] = heap_[child];
    hole = child;
  }
  heap_[hole] = rank;
}

WholeSequenceFill::Place WholeSequenceFill::Add(int64_t length) {
  if (heap_.empty()) {
    heap_.resize(free_at_.size());
    std::iota(heap_.begin(), heap_.end(), 0);
    // A sorted list is a heap.
    std::sort(heap_.begin(), heap_.end(), [&](int a, int b) { return Before(a, b); });
  }
  const int rank = heap_[0];
  const int micro_batch = AddTo(rank, length);
  SinkTop();
  return {rank, micro_batch};
}

int WholeSequenceFill::AddTo(int rank, int64_t length) {
  auto& rooms = rooms_[rank];
  auto fit = rooms.end();
  for (auto room = rooms.begin(); room != rooms.end(); ++room) {
    if (room->tokens < length) continue;
    if (fit == rooms.end() ||
        std::tie(room->tokens, room->micro_batch) < std::tie(fit->tokens, fit->micro_batch)) {
      fit = room;
    }
  }
  PlanningTime work = cost_.SequenceArea(length, 1);
  int micro_batch;
  if (fit == rooms.end()) {
    micro_batch = micro_batches_[rank]++;
    work += cost_.micro_batch();
    if (capacity_ > length) rooms.push_back({capacity_ - length, micro_batch});
  } else {
    micro_batch = fit->micro_batch;
    fit->tokens -= length;
    if (fit->tokens == 0) {
      *fit = rooms.back();
      rooms.pop_back();
    }
  }
  free_at_[rank] += cost_.OnRank(work, rank);
  return micro_batch;
}

PlanningTime WholeSequenceFill::latest() const {
  return free_at_.empty() ? 0 : *std::max_element(free_at_.begin(), free_at_.end());
}

}  // namespace longspan
