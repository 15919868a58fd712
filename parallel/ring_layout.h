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
  // So many neighbouring members split the heads between them and the ring runs over the others
  // (head_exchange.h); 1: ring alone. Divides the number of ranks.
  int head_parallel = 1;
  // Rows this member holds, over all sequences of the ring.
  int64_t rows() const;
  // Rows that member `index` holds.
  int64_t rows_of(int index) const;
};

// The numbers of heads of queries, and of keys and values.
struct HeadCounts {
  int64_t heads = 1, kv_heads = 1, head_dim = 1;
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
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
