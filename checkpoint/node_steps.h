// Steps in a directory on every node: the protocol of tiers.
#ifndef LONGSPAN_CHECKPOINT_NODE_STEPS_H_
#define LONGSPAN_CHECKPOINT_NODE_STEPS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "checkpoint/step_protocol.h"
#include "checkpoint/tiers.h"

namespace longspan {

// `options.directory` is the tier's. `file_bytes` of every rank. `tier.erasure` suits `tier.nodes`.
std::unique_ptr<StepProtocol> MakeNodeSteps(FileSystem& files, CheckpointOptions options,
                                            int64_t generation, const TierOptions& tier,
                                            const std::vector<int64_t>& file_bytes,
                                            Transport& transport, absl::Duration timeout,
                                            const std::atomic<bool>& stop);

// The lowest rank of each rank's node.
std::vector<int> NodeLeaders(const std::vector<int>& nodes);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_NODE_STEPS_H_
