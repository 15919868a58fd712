#include "parallel/plan.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "kernels/device/check.h"

namespace longspan {
namespace {

// Mixes 64-bit words by arithmetic alone, so byte order does not matter. The constants are those of
// SplitMix64.
class WordHash {
 public:
  void Add(int64_t value) {
    state_ = (std::rotl(state_, 27) ^ static_cast<uint64_t>(value)) * 0x9e3779b97f4a7c15u;
    state_ ^= state_ >> 32;
  }
  uint64_t value() const {
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_ = 0x6c6f6e677370616eu;
};

}  // namespace

int64_t SequenceSlice::tokens() const {
  int64_t sum = 0;
  for (const TokenRange& range : ranges) sum += range.size();
  return sum;
}

int64_t MicroBatch::tokens() const {
  int64_t sum = 0;
  for (const SequenceSlice& slice : slices) sum += slice.tokens();
  return sum;
}

int64_t StepPlan::total_tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}

std::array<TokenRange, 2> ZigzagRanges(int64_t length, int members, int member) {
  LONGSPAN_CHECK(length >= 0 && member >= 0 && member < members,
                 "a member's index is less than the number of members");
  const int64_t parts = 2 * int64_t{members};
  // floor(k * length / parts) without the product, which could overflow.
  const int64_t quotient = length / parts, remainder = length % parts;
  const auto cut = [&](int64_t k) { return k * quotient + k * remainder / parts; };
  const int64_t mirror = parts - 1 - member;
  return {{{cut(member), cut(member + 1)}, {cut(mirror), cut(mirror + 1)}}};
}

TokenRanges ZigzagSliceRanges(int64_t length, int members, int member) {
  TokenRanges ranges;
  for (const TokenRange& range : ZigzagRanges(length, members, member)) {
    if (range.size() == 0) continue;
    if (!ranges.empty() && ranges.back().end == range.begin) {
      ranges.back().end = range.end;
    } else {
      ranges.push_back(range);
    }
  }
  return ranges;
}

uint64_t HashOf(const StepPlan& plan) {
  // Every list is preceded by its size, so that different plans never give the same words.
  WordHash hash;
  const auto add_size = [&hash](const auto& list) { hash.Add(static_cast<int64_t>(list.size())); };
  hash.Add(plan.ranks);
  hash.Add(plan.micro_batch_tokens);
  add_size(plan.lengths);
  for (const int64_t length : plan.lengths) hash.Add(length);
  add_size(plan.groups);
  for (const SequenceGroup& group : plan.groups) {
    hash.Add(group.sequence);
    add_size(group.ranks);
    for (const int rank : group.ranks) hash.Add(rank);
    // Negative, which no other number at this place is: plans without it keep their hashes.
    if (group.head_parallel != 1) hash.Add(-int64_t{group.head_parallel});
  }
  add_size(plan.micro_batches);
  for (const std::vector<MicroBatch>& list : plan.micro_batches) {
    add_size(list);
    for (const MicroBatch& micro_batch : list) {
      add_size(micro_batch.slices);
      for (const SequenceSlice& slice : micro_batch.slices) {
        hash.Add(slice.sequence);
        hash.Add(slice.group);
        add_size(slice.ranges);
        for (const TokenRange& range : slice.ranges) {
          hash.Add(range.begin);
          hash.Add(range.end);
        }
      }
    }
  }
  return hash.value();
}

}  // namespace longspan
