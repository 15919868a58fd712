#include "parallel/ring_traffic.h"

#include <optional>

namespace longspan {

std::vector<int64_t> RingBytesByRank(const StepPlan& plan, const AttentionOptions& options,
                                     const HeadCounts& heads) {
  std::vector<int64_t> bytes(plan.ranks, 0);
  for (int rank = 0; rank < plan.ranks; ++rank) {
    for (const MicroBatch& micro_batch : plan.micro_batches[rank]) {
      const std::optional<RingLayout> ring = RingOf(plan, rank, micro_batch);
      if (!ring.has_value()) continue;
      bytes[rank] +=
          RingForwardBytes(*ring, options, heads) + RingBackwardBytes(*ring, options, heads);
    }
  }
  return bytes;
}

}  // namespace longspan
