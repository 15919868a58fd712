// What sharded optimizers have in common: the ranges that a rank owns and what changes from step to
// step.
#ifndef LONGSPAN_OPTIM_SHARDED_UPDATE_H_
#define LONGSPAN_OPTIM_SHARDED_UPDATE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Consecutive elements of one tensor that a rank owns. Elements of no range are padding and are
// left alone.
struct OwnedRange {
  int64_t bucket = 0;
  int64_t arena_begin = 0;  // element offset in the full arenas of parameters and gradients
  int64_t shard_begin = 0;  // element offset in the rank's shard arenas of moments
  int64_t elements = 0;
  bool decay = false;  // weight decay applies
};

// What changes from step to step.
struct OptimizerStep {
  double rate = 0;
  double gradient_scale = 1;  // clip factor / N
  int64_t number = 1;         // 1 for the first update: bias correction
};

// The ranges of one rank by bucket, neighbours with the same decay joined.
class BucketRanges {
 public:
  BucketRanges() = default;
  // owned: ascending in shard_begin, without overlap, buckets ascending within [0, buckets), all
  // within a shard of `shard_elements`.
  BucketRanges(const std::vector<OwnedRange>& owned, int64_t buckets, int64_t shard_elements);

  // Where `range` lies in `parameters`, f32: the full arena, or this rank's shard arena alone.
  TensorView Parameters(const TensorView& parameters, const OwnedRange& range) const;
  // Calls update(range) for every range, first bucket first, once `stream` waits for the gate of
  // its bucket (one gate a bucket).
  void ForEach(const std::vector<Event>& gates, Stream& stream,
               const std::function<void(const OwnedRange&)>& update) const;

 private:
  int64_t shard_elements_ = 0;
  std::vector<std::vector<OwnedRange>> buckets_;
};

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_SHARDED_UPDATE_H_
