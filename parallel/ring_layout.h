// RingLayout: one ring as one of its members sees it, and which rows its members hold.
#ifndef LONGSPAN_PARALLEL_RING_LAYOUT_H_
#define LONGSPAN_PARALLEL_RING_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "parallel/plan.h"

namespace longspan {

// The slices of a ring's sequences lie one after the other in the first rows of a micro-batch's
// tensors, in the order of `lengths`; each slice holds part r, then part 2d-1-r (zigzag).
struct RingLayout {
  std::vector<int> ranks;        // ring order, at least two
  int member = 0;                // this rank's index in `ranks`
  std::vector<int64_t> lengths;  // tokens of each whole sequence
  // Rows this member holds, over all sequences of the ring.
  int64_t rows() const;
  // Rows that member `index` holds.
  int64_t rows_of(int index) const;
};

// The slices of a micro-batch in the order of their rows: those of its ring in group order, so that
// every member sees the ring's sequences alike; then whole sequences.
std::vector<SequenceSlice> InRowOrder(const MicroBatch& micro_batch);

// The ring of a micro-batch of rank `rank`; none if it holds whole sequences alone.
std::optional<RingLayout> RingOf(const StepPlan& plan, int rank, const MicroBatch& micro_batch);

// What a block holds of one sequence: `first` rows from `begin` on, then `second` rows.
struct SequenceRows {
  int64_t begin = 0;
  int64_t first = 0;
  int64_t second = 0;
  int64_t both() const { return first + second; }
};

// Rows of all sequences in a block of member `member`: whole, or shorn of the second parts.
std::vector<SequenceRows> BlockRows(const RingLayout& layout, int member, bool whole);
int64_t TotalRows(const std::vector<SequenceRows>& rows);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_RING_LAYOUT_H_
