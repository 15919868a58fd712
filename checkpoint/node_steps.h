// Steps in a directory on every node: the protocol of tiers.
#ifndef LONGSPAN_CHECKPOINT_NODE_STEPS_H_
#define LONGSPAN_CHECKPOINT_NODE_STEPS_H_

#include <atomic>
#include <memory>

#include "absl/time/time.h"
#include "checkpoint/step_protocol.h"
#include "checkpoint/tiers.h"

namespace longspan {

// `options.directory` is the tier's.
std::unique_ptr<StepProtocol> MakeNodeSteps(FileSystem& files, CheckpointOptions options,
                                            const TierOptions& tier, Transport& transport,
                                            absl::Duration timeout, const std::atomic<bool>& stop);

// The lowest rank of each rank's node.
std::vector<int> NodeLeaders(const std::vector<int>& nodes);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_NODE_STEPS_H_
