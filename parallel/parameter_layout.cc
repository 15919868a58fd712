#include "parallel/parameter_layout.h"

#include <algorithm>
#include <string>
#include <unordered_set>
#include <utility>

#include "kernels/device/check.h"

namespace longspan {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

int64_t ParameterSpec::elements() const {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

ParameterLayout::ParameterLayout(std::vector<ParameterSpec> specs, int ranks,
                                 int64_t bucket_elements)
    : specs_(std::move(specs)), ranks_(ranks) {
  LONGSPAN_CHECK(ranks >= 1, "at least one rank");
  LONGSPAN_CHECK(bucket_elements >= 1, "buckets hold elements");
  const int64_t bucket_alignment = int64_t{ranks} * kShardAlignment;
  const int64_t tensors = static_cast<int64_t>(specs_.size());
  std::unordered_set<std::string> names;
  Bucket bucket;
  for (int64_t tensor = 0; tensor < tensors; ++tensor) {
    const ParameterSpec& spec = specs_[tensor];
    LONGSPAN_CHECK(spec.elements() >= 1, "tensors have elements");
    LONGSPAN_CHECK(names.insert(spec.name).second, "tensor names are unique");
    const auto same_family = [&](int64_t a, int64_t b) {
      return !specs_[a].fuse.empty() && specs_[a].fuse == specs_[b].fuse;
    };
    if (tensor == bucket.first_tensor || !same_family(tensor - 1, tensor)) {
      bucket.elements = RoundUp(bucket.elements, kTensorAlignment);
    }
    offsets_.push_back(bucket.begin + bucket.elements);
    bucket.elements += spec.elements();
    tensor_elements_ += spec.elements();
    const bool last = tensor + 1 == tensors;
    if (!last && (bucket.elements < bucket_elements || same_family(tensor, tensor + 1))) continue;
    bucket.elements = RoundUp(bucket.elements, bucket_alignment);
    bucket.last_tensor = tensor + 1;
    bucket.shard_begin = bucket.begin / ranks;
    buckets_.push_back(bucket);
    arena_elements_ = bucket.begin + bucket.elements;
    bucket = Bucket{.begin = arena_elements_, .first_tensor = tensor + 1};
  }
}

int64_t ParameterLayout::largest_bucket() const {
  int64_t largest = 0;
  for (const Bucket& bucket : buckets_) largest = std::max(largest, bucket.elements);
  return largest;
}

int64_t ParameterLayout::Find(const std::string& name) const {
  for (size_t i = 0; i < specs_.size(); ++i) {
    if (specs_[i].name == name) return static_cast<int64_t>(i);
  }
  return -1;
}

int64_t ParameterLayout::shard_arena_begin(int64_t bucket, int rank) const {
  return buckets_[bucket].begin + rank * shard_bucket_elements(bucket);
}

std::vector<ShardRange> ParameterLayout::Shard(int rank) const {
  LONGSPAN_CHECK(rank >= 0 && rank < ranks_, "a rank of this layout");
  std::vector<ShardRange> ranges;
  for (int64_t b = 0; b < static_cast<int64_t>(buckets_.size()); ++b) {
    const int64_t begin = shard_arena_begin(b, rank);
    const int64_t end = begin + shard_bucket_elements(b);
    for (int64_t tensor = buckets_[b].first_tensor; tensor < buckets_[b].last_tensor; ++tensor) {
      const int64_t owned_begin = std::max(begin, offsets_[tensor]);
      const int64_t owned_end = std::min(end, offsets_[tensor] + specs_[tensor].elements());
      if (owned_begin >= owned_end) continue;
      ranges.push_back({.tensor = tensor,
                        .bucket = b,
                        .flat_begin = owned_begin - offsets_[tensor],
                        .flat_end = owned_end - offsets_[tensor],
                        .arena_begin = owned_begin,
                        .shard_begin = buckets_[b].shard_begin + owned_begin - begin});
    }
  }
  return ranges;
}

}  // namespace longspan
