// Plans and lengths that several tests of this folder use.
#ifndef LONGSPAN_TESTS_PARALLEL_TEST_PLANS_H_
#define LONGSPAN_TESTS_PARALLEL_TEST_PLANS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel/plan.h"

namespace longspan {

// SplitMix64: the same numbers on every machine, which std::uniform_int_distribution does not
// promise.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [low, high].
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Next() % static_cast<uint64_t>(high - low + 1));
  }
  // In [1, high], small ones as likely in each octave as large ones.
  int64_t LongTailed(int64_t high) {
    int64_t octave = 1;
    int octaves = 0;
    while (octave < high) octave *= 2, ++octaves;
    const int64_t top = int64_t{1} << Between(0, octaves);
    return std::min(high, Between((top + 1) / 2, top));
  }

 private:
  uint64_t state_;
};

// Four ranks, capacity 8; two groups in one ring on ranks 1 and 3, then a ring on ranks 0, 2, 1,
// and whole sequences.
inline StepPlan TwoRingPlan() {
  StepPlan plan;
  plan.ranks = 4;
  plan.micro_batch_tokens = 8;
  plan.lengths = {8, 6, 20, 3, 8};
  plan.groups = {{1, {1, 3}}, {0, {1, 3}}, {2, {0, 2, 1}}};
  const auto share = [&plan](int64_t group, int member) {
    const SequenceGroup& g = plan.groups[group];
    return SequenceSlice{
        g.sequence, group,
        ZigzagSliceRanges(plan.lengths[g.sequence], static_cast<int>(g.ranks.size()), member)};
  };
  plan.micro_batches = {{{{{4, -1, {{0, 8}}}}}, {{share(2, 0)}}},
                        {{{share(0, 0), share(1, 0)}}, {{share(2, 2)}}},
                        {{{share(2, 1)}}},
                        {{{share(0, 1), share(1, 1)}}, {{{3, -1, {{0, 3}}}}}}};
  return plan;
}

}  // namespace longspan

#endif  // LONGSPAN_TESTS_PARALLEL_TEST_PLANS_H_
