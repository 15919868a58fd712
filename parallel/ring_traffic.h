// What the rings of a plan send, by the plan alone: what transports are held to, to the byte.
#ifndef LONGSPAN_PARALLEL_RING_TRAFFIC_H_
#define LONGSPAN_PARALLEL_RING_TRAFFIC_H_

#include <cstdint>
#include <vector>

#include "parallel/plan.h"
#include "parallel/ring_attention.h"

namespace longspan {

// Bytes that each rank sends for one attention layer, forward and backward, over all its
// micro-batches.
std::vector<int64_t> RingBytesByRank(const StepPlan& plan, const AttentionOptions& options,
                                     const HeadCounts& heads);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_RING_TRAFFIC_H_
