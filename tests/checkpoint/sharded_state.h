// ShardedState: a small made-up training state, cut among ranks the way the runtime does it.
//
// Tensors of odd sizes and several dtypes lie one after another in buckets; a bucket is padded, and
// rank r of n holds its equal n-th part. The bytes are a fixed function of step, tensor and
// position, so any rank of any job knows what they must be. tests/golden depends on that function:
// do not change it.
#ifndef LONGSPAN_TESTS_CHECKPOINT_SHARDED_STATE_H_
#define LONGSPAN_TESTS_CHECKPOINT_SHARDED_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace longspan {

class ShardedState {
 public:
  // What rank `rank` of `ranks` holds after `step`. `scale` multiplies the tensors' first
  // dimension.
  ShardedState(int rank, int ranks, int64_t step, int64_t scale = 1);
  const std::vector<StateRegion>& regions() const { return regions_; }
  // Overwrites everything, so that a restore has something to do.
  void Clear();
  // "" if all bytes are those of `step`; else what differs first.
  std::string DifferenceFrom(int64_t step) const;

 private:
  std::vector<StateRegion> regions_;
  std::vector<std::vector<char>> memory_;
};

// A JSON object that names the step.
std::string StateMetadata(int64_t step);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_CHECKPOINT_SHARDED_STATE_H_
