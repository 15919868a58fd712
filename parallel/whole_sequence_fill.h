// WholeSequenceFill: short sequences go, one by one, to the rank that is free first, there into the
// fullest micro-batch that still has room.
#ifndef LONGSPAN_PARALLEL_WHOLE_SEQUENCE_FILL_H_
#define LONGSPAN_PARALLEL_WHOLE_SEQUENCE_FILL_H_

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "parallel/integer_cost.h"

namespace longspan {

class WholeSequenceFill {
 public:
  // `free_at`: by rank. `capacity`: tokens of a micro-batch. Ranks that are free at the same time
  // are taken by number.
  WholeSequenceFill(const IntegerCostModel& cost, int64_t capacity,
                    std::vector<PlanningTime> free_at);

  struct Place {
    int rank;
    int micro_batch;  // counts this fill's micro-batches of the rank
  };
  // `length` <= capacity.
  Place Add(int64_t length);
  // To a given rank; returns the micro-batch. All of these come before the first Add.
  int AddTo(int rank, int64_t length);

  PlanningTime free_at(int rank) const { return free_at_[rank]; }
  PlanningTime latest() const;

 private:
  struct Room {
    int64_t tokens;
    int micro_batch;
  };

  bool Before(int a, int b) const {
    return free_at_[a] != free_at_[b] ? free_at_[a] < free_at_[b] : a < b;
  }
  void SinkTop();

  const IntegerCostModel& cost_;
  const int64_t capacity_;
  std::vector<PlanningTime> free_at_;
  std::vector<int> heap_;  // ranks, the one that is free first on top; empty before the first Add
  std::vector<absl::InlinedVector<Room, 4>> rooms_;
  std::vector<int> micro_batches_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_WHOLE_SEQUENCE_FILL_H_
