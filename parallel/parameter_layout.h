// ParameterLayout: where each named tensor lies in the flat arenas of parameters, gradients and
// optimizer state, and which part of each bucket a rank owns (ZeRO-1).
//
// A bucket is some whole consecutive tensors, padded to a multiple of ranks * 64 elements; rank r
// owns the r-th equal part of each bucket, so it holds at most one range of any tensor. A tensor
// starts at a multiple of 16 elements (64 bytes) of the arena, unless it is fused to the one before
// it. Tensors keep the order in which they were added: the model adds them in reverse order of use,
// so that the first bucket's gradients are complete first. Pure value; the same on every rank.
#ifndef LONGSPAN_PARALLEL_PARAMETER_LAYOUT_H_
#define LONGSPAN_PARALLEL_PARAMETER_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

struct ParameterSpec {
  std::string name;            // e.g. "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // row-major
  bool decay = false;          // weight decay applies: two or more dimensions
  // Tensors with the same non-empty `fuse` that follow each other are kept in one bucket without
  // padding between them, so that they can be used as one matrix (q, k, v; gate, up).
  std::string fuse;
  int64_t elements() const;
};

// The part of one tensor that one rank owns.
struct ShardRange {
  int64_t tensor = 0;  // index into ParameterLayout::specs()
  int64_t bucket = 0;
  int64_t flat_begin = 0;  // range of the tensor's own flattened elements
  int64_t flat_end = 0;
  int64_t arena_begin = 0;  // where flat_begin lies in the full arena
  int64_t shard_begin = 0;  // where flat_begin lies in the rank's shard arena (all buckets' parts,
                            // one after the other)
};

class ParameterLayout {
 public:
  struct Bucket {
    int64_t begin = 0;         // element offset in the full arena
    int64_t elements = 0;      // padded: a multiple of ranks * 64
    int64_t first_tensor = 0;  // tensors [first_tensor, last_tensor)
    int64_t last_tensor = 0;
    int64_t shard_begin = 0;  // element offset of this bucket's part in a rank's shard arena
  };

  static constexpr int64_t kShardAlignment =
      64;  // elements: every rank's part of a bucket is a multiple
  static constexpr int64_t kTensorAlignment = 16;  // elements

  // Buckets are closed once they reach `bucket_elements`, never inside a fused family.
  ParameterLayout(std::vector<ParameterSpec> specs, int ranks, int64_t bucket_elements = 4 << 20);

  const std::vector<ParameterSpec>& specs() const { return specs_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  int ranks() const { return ranks_; }
  // Element offset of a tensor in the full arena.
  int64_t offset(int64_t tensor) const { return offsets_[tensor]; }
  // Index of a tensor by name, or -1.
  int64_t Find(const std::string& name) const;
  // Elements of the full arena, padding included; of one rank's shard; of all tensors without
  // padding.
  int64_t arena_elements() const { return arena_elements_; }
  int64_t shard_elements() const { return arena_elements_ / ranks_; }
  int64_t tensor_elements() const { return tensor_elements_; }
  // Elements of the largest bucket.
  int64_t largest_bucket() const;
  // Elements [begin, end) of the full arena that `rank` owns of `bucket`.
  int64_t shard_arena_begin(int64_t bucket, int rank) const;
  int64_t shard_bucket_elements(int64_t bucket) const { return buckets_[bucket].elements / ranks_; }
  // What `rank` owns, in arena order; padding belongs to no range.
  std::vector<ShardRange> Shard(int rank) const;

 private:
  std::vector<ParameterSpec> specs_;
  std::vector<int64_t> offsets_;
  std::vector<Bucket> buckets_;
  int ranks_;
  int64_t arena_elements_ = 0;
  int64_t tensor_elements_ = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_PARAMETER_LAYOUT_H_
