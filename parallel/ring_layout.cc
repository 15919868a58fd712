#include "parallel/ring_layout.h"

#include <algorithm>
#include <array>

#include "kernels/device/check.h"

namespace longspan {

int64_t RingLayout::rows_of(int index) const {
  return TotalRows(BlockRows(*this, index, /*whole=*/true));
}

int64_t RingLayout::rows() const { return rows_of(member); }

std::vector<SequenceSlice> InRowOrder(const MicroBatch& micro_batch) {
  std::vector<SequenceSlice> slices = micro_batch.slices;
  std::stable_sort(slices.begin(), slices.end(),
                   [](const SequenceSlice& a, const SequenceSlice& b) {
                     if ((a.group < 0) != (b.group < 0)) return b.group < 0;
                     return a.group < b.group;
                   });
  return slices;
}

std::optional<RingLayout> RingOf(const StepPlan& plan, int rank, const MicroBatch& micro_batch) {
  std::optional<RingLayout> ring;
  for (const SequenceSlice& slice : InRowOrder(micro_batch)) {
    if (slice.group < 0) break;
    const std::vector<int>& ranks = plan.groups[slice.group].ranks;
    if (!ring.has_value()) {
      const auto member = std::find(ranks.begin(), ranks.end(), rank);
      LONGSPAN_CHECK(member != ranks.end(), "a slice on a rank outside its group");
      ring = RingLayout{ranks,
                        static_cast<int>(member - ranks.begin()),
                        {},
                        plan.groups[slice.group].head_parallel};
    }
    ring->lengths.push_back(plan.lengths[slice.sequence]);
  }
  return ring;
}

std::vector<SequenceRows> BlockRows(const RingLayout& layout, int member, bool whole) {
  std::vector<SequenceRows> result;
  int64_t begin = 0;
  for (int64_t length : layout.lengths) {
    const std::array<TokenRange, 2> ranges =
        ZigzagRanges(length, static_cast<int>(layout.ranks.size()), member);
    result.push_back({begin, ranges[0].size(), whole ? ranges[1].size() : 0});
    begin += result.back().both();
  }
  return result;
}

int64_t TotalRows(const std::vector<SequenceRows>& rows) {
  return rows.empty() ? 0 : rows.back().begin + rows.back().both();
}

}  // namespace longspan
