// SortedBatch: the sequences of a request, longest first, as policies look at them. Ties by index,
// so that the order is the same everywhere.
#ifndef LONGSPAN_PARALLEL_SORTED_BATCH_H_
#define LONGSPAN_PARALLEL_SORTED_BATCH_H_

#include <cstdint>
#include <vector>

#include "parallel/planner.h"

namespace longspan {

class SortedBatch {
 public:
  explicit SortedBatch(const PlanRequest& request);

  int64_t size() const { return static_cast<int64_t>(sequences_.size()); }
  // Of the place in the order.
  int64_t sequence(int64_t place) const { return sequences_[place]; }
  int64_t length(int64_t place) const { return lengths_[place]; }
  // The first place whose sequence fits one micro-batch.
  int64_t first_short() const { return first_short_; }
  // The fewest ranks that hold it.
  int minimum_width(int64_t place) const {
    return static_cast<int>((lengths_[place] - 1) / capacity_ + 1);
  }

 private:
  int64_t capacity_;
  std::vector<int64_t> sequences_, lengths_;
  int64_t first_short_ = 0;
};

// A sequence of `length` tokens alone on the members of a ring (or whole on one rank): its
// micro-batch on the most loaded of them, on a rank of speed 1. With the best width of head
// parallelism, as if all members were on one node.
PlanningTime RingWork(const IntegerCostModel& cost, int64_t length, int members);
// The same with the best of `head_widths`, which divide `members`.
PlanningTime RingWork(const IntegerCostModel& cost, int64_t length, int members,
                      const std::vector<int>& head_widths);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_SORTED_BATCH_H_
