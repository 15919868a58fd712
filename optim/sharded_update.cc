#include "optim/sharded_update.h"

#include "kernels/device/check.h"

namespace longspan {

BucketRanges::BucketRanges(const std::vector<OwnedRange>& owned, int64_t buckets,
                           int64_t shard_elements)
    : shard_elements_(shard_elements), buckets_(buckets) {
  int64_t shard_end = 0, last_bucket = 0;
  for (const OwnedRange& range : owned) {
    LONGSPAN_CHECK(range.bucket >= last_bucket && range.bucket < buckets, "buckets ascend");
    LONGSPAN_CHECK(range.elements > 0 && range.shard_begin >= shard_end, "ranges ascend");
    last_bucket = range.bucket;
    shard_end = range.shard_begin + range.elements;
    LONGSPAN_CHECK(shard_end <= shard_elements, "ranges lie in the shard");
    std::vector<OwnedRange>& bucket = buckets_[range.bucket];
    if (!bucket.empty()) {
      OwnedRange& last = bucket.back();
      if (last.decay == range.decay && last.shard_begin + last.elements == range.shard_begin &&
          last.arena_begin + last.elements == range.arena_begin) {
        last.elements += range.elements;
        continue;
      }
    }
    bucket.push_back(range);
  }
}

TensorView BucketRanges::Parameters(const TensorView& parameters, const OwnedRange& range) const {
  LONGSPAN_CHECK(parameters.rank() == 1, "arenas are flat");
  // With one rank the two are the same.
  const bool shard = parameters.elements() == shard_elements_;
  const int64_t begin = shard ? range.shard_begin : range.arena_begin;
  return parameters.Slice(0, begin, begin + range.elements);
}

void BucketRanges::ForEach(const std::vector<Event>& gates, Stream& stream,
                           const std::function<void(const OwnedRange&)>& update) const {
  LONGSPAN_CHECK(gates.size() == buckets_.size(), "one gate for each bucket");
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    stream.WaitFor(gates[bucket]);
    for (const OwnedRange& range : buckets_[bucket]) update(range);
  }
}

}  // namespace longspan
