#include "parallel/ring_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attention_sequences.h"
#include "parallel/transport/rank_threads.h"

// Every buffer of the device starts as NaN: whatever reads what nobody wrote or sent shows. (The
// test is linked with
// --wrap=aligned_alloc.)
extern "C" void* __real_aligned_alloc(size_t alignment, size_t bytes);
extern "C" void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
  void* memory = __real_aligned_alloc(alignment, bytes);
  if (memory != nullptr) std::memset(memory, 0xff, bytes);
  return memory;
}

namespace longspan {
namespace {

using Shape = AttentionShape;

struct Bytes {
  int64_t forward = 0, backward = 0;
};

// One member's forward and backward pass; its rows of the results go to `results`, each row written
// by one rank.
absl::Status RunMember(const Member& member, const Shape& shape, int64_t gap,
                       const std::vector<Sequence>& sequences, Transport& transport, Device& device,
                       std::vector<Result>& results, Bytes& bytes) {
  MemberRun run(member, shape, gap, sequences);
  Stream stream = device.CreateStream("ring");
  int64_t before = transport.exchanged_bytes();
  absl::Status status = run.QueueForward(transport, stream, nullptr);
  if (!status.ok()) return status;
  bytes.forward = transport.exchanged_bytes() - before;
  before = transport.exchanged_bytes();
  status = run.QueueBackward(transport, stream, nullptr);
  if (!status.ok()) return status;
  bytes.backward = transport.exchanged_bytes() - before;
  status = stream.Synchronize();
  if (!status.ok()) return status;
  status = run.Collect(results);
  if (!status.ok()) return status;
  // The stream is idle but may not have dropped its last piece of work: one more makes sure of it.
  stream.Launch("flush", [] {});
  status = stream.Synchronize();
  if (device.memory().current_bytes() != 0) return absl::InternalError("workspace still allocated");
  return status;
}

std::vector<Result> UnsetResults(const std::vector<Sequence>& sequences, const Shape& shape) {
  std::vector<Result> results;
  for (const Sequence& s : sequences) results.push_back(UnsetResult(s, shape));
  return results;
}

struct Ring {
  std::vector<int> ranks;
  std::vector<int64_t> lengths;
  Shape shape;
  int64_t gap = 0;
  std::vector<int64_t> whole = {};  // of each member, its own
  AttentionOptions options = {};
  int head_parallel = 1;

  Member member(int index) const {
    std::vector<size_t> sequences(lengths.size() + whole.size());
    std::iota(sequences.begin(), sequences.end(), 0);
    for (size_t i = lengths.size(); i < sequences.size(); ++i) sequences[i] += index * whole.size();
    return {RingLayout{ranks, index, lengths, head_parallel}, whole, sequences, options};
  }
};

// Runs rings one after the other on `ranks` ranks, each rank those that it is a member of, and
// checks the results.
void CheckRings(int ranks, const std::vector<Ring>& rings, RankThreadOptions options = {}) {
  options.timeout = absl::Seconds(60);
  std::vector<std::vector<Sequence>> sequences;
  std::vector<std::vector<Result>> results;
  std::vector<std::vector<Bytes>> bytes;
  for (size_t i = 0; i < rings.size(); ++i) {
    sequences.emplace_back();
    std::vector<int64_t> lengths = rings[i].lengths;
    for (size_t member = 0; member < rings[i].ranks.size(); ++member) {
      lengths.insert(lengths.end(), rings[i].whole.begin(), rings[i].whole.end());
    }
    for (int64_t length : lengths) {
      sequences[i].push_back(
          RandomSequence(length, rings[i].shape, 100 * i + sequences[i].size() + 7));
    }
    results.push_back(UnsetResults(sequences[i], rings[i].shape));
    bytes.emplace_back(rings[i].ranks.size());
  }
  const absl::Status status = RunRanks(
      ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        for (size_t i = 0; i < rings.size(); ++i) {
          const auto place =
              std::find(rings[i].ranks.begin(), rings[i].ranks.end(), transport.rank());
          if (place == rings[i].ranks.end()) continue;
          const int member = static_cast<int>(place - rings[i].ranks.begin());
          absl::Status end =
              RunMember(rings[i].member(member), rings[i].shape, rings[i].gap, sequences[i],
                        transport, device, results[i], bytes[i][member]);
          if (!end.ok()) return end;
        }
        return absl::OkStatus();
      },
      options);
  ASSERT_TRUE(status.ok()) << status;
  for (size_t i = 0; i < rings.size(); ++i) {
    int64_t rows = 0;
    for (size_t index = 0; index < rings[i].ranks.size(); ++index) {
      const Member member = rings[i].member(static_cast<int>(index));
      rows += member.rows();
      const HeadCounts heads = rings[i].shape.counts();
      EXPECT_EQ(bytes[i][index].forward, RingForwardBytes(*member.layout, member.options, heads));
      EXPECT_EQ(bytes[i][index].backward, RingBackwardBytes(*member.layout, member.options, heads));
    }
    int64_t tokens = 0;
    for (size_t s = 0; s < sequences[i].size(); ++s) {
      const Result expected = BruteForce(sequences[i][s], rings[i].shape);
      const std::string what = absl::StrCat("ring ", i, " of ", rings[i].ranks.size(), ", length ",
                                            sequences[i][s].length);
      const Shape& shape = rings[i].shape;
      const DType wire = rings[i].options.wire;
      ExpectNear(results[i][s], expected, expected, shape, wire, what + ", FP64");
      ExpectNear(results[i][s], SingleRank(sequences[i][s], shape), expected, shape, wire,
                 what + ", one rank");
      tokens += sequences[i][s].length;
    }
    EXPECT_EQ(rows, tokens);
  }
}

std::vector<int> Ascending(int members) {
  std::vector<int> ranks(members);
  for (int i = 0; i < members; ++i) ranks[i] = i;
  return ranks;
}

class RingAttention : public ::testing::TestWithParam<int> {};

TEST_P(RingAttention, AnyLength) {
  const int d = GetParam();
  std::vector<Ring> rings;
  for (int64_t length : {1, 2, 2 * d - 1, 2 * d, 2 * d + 1, 97, 128 + 64, 211}) {
    rings.push_back({Ascending(d), {length}, {}});
  }
  CheckRings(d, rings);
}

TEST_P(RingAttention, SeveralSequencesInOneRing) {
  const int d = GetParam();
  CheckRings(d, {{Ascending(d), {50, 2 * d + 1, 1, 2 * d - 1, 101, 3, 64}, {}},
                 {Ascending(d), {1, 1, 2}, {}},
                 {Ascending(d), {2 * d - 1, 120}, {}, /*gap=*/16}});
}

TEST_P(RingAttention, RandomDelaysAndBufferedSends) {
  const int d = GetParam();
  for (uint64_t seed = 0; seed < 4; ++seed) {
    RankThreadOptions options;
    options.network.max_delay = absl::Milliseconds(3);
    options.network.seed = seed;
    options.network.eager_bytes = seed % 2 == 0 ? 0 : 4096;
    options.threads_per_rank = 1 + static_cast<int>(seed / 2);
    CheckRings(d, {{Ascending(d), {77, 5, 2 * d + 1}, {}, /*gap=*/8}, {Ascending(d), {150}, {}}},
               options);
  }
}

TEST_P(RingAttention, GroupedQueries) {
  const int d = GetParam();
  CheckRings(d, {{Ascending(d), {83, 40}, {.heads = 8, .kv_heads = 1, .head_dim = 16}},
                 {Ascending(d), {90}, {.heads = 4, .kv_heads = 2, .head_dim = 8}, /*gap=*/4},
                 {Ascending(d), {60, 7}, {.heads = 3, .kv_heads = 3, .head_dim = 4}}});
}

TEST_P(RingAttention, ScoresFarFromZero) {
  const int d = GetParam();
  CheckRings(d, {{Ascending(d), {75, 9}, {.shift = -140}}, {Ascending(d), {75}, {.shift = 140}}});
}

TEST_P(RingAttention, OrderNeedNotAscend) {
  const int d = GetParam();
  std::vector<int> ranks = Ascending(d);
  std::mt19937_64 random(d);
  for (int i = 0; i < 3; ++i) {
    std::shuffle(ranks.begin(), ranks.end(), random);
    CheckRings(d, {{ranks, {61, 30}, {}}});
  }
}

INSTANTIATE_TEST_SUITE_P(Members, RingAttention, ::testing::Values(2, 3, 4, 5));

TEST(RingAttentionGroups, OverlapInOneRank) {
  // Rank 1 is in both rings, rank 3 in none.
  CheckRings(4, {{{1, 0}, {40, 11}, {}}, {{2, 1}, {53}, {}}, {{0, 2, 1}, {20}, {}}});
}

TEST(RingAttentionBeside, WholeSequencesAreComputedToo) {
  // Short ones, none but empty shares of the ring, and one that is cut between the ring's steps.
  for (int d : {2, 3, 5}) {
    CheckRings(d, {{Ascending(d), {90, 7}, {}, /*gap=*/8, /*whole=*/{5, 1, 40}},
                   {Ascending(d), {1}, {}, 0, {400}},
                   {Ascending(d), {150}, {.heads = 4, .kv_heads = 2}, 0, {200, 3, 260}}});
  }
}

TEST(RingAttentionWindow, OfAnyWidth) {
  for (int d : {2, 3, 4, 5}) {
    std::vector<Ring> rings;
    // A part of the 97 tokens has 97 / 2d of them; the window ends within, at and beyond it, and
    // at the whole length.
    for (int64_t window : {1, 2, 3, 97 / (2 * d), 97 / (2 * d) + 1, 97 / d, 50, 80, 96, 97, 200}) {
      rings.push_back({Ascending(d),
                       {97, 2 * d - 1, 30},
                       {.heads = 4, .kv_heads = 2, .window = window},
                       /*gap=*/4,
                       /*whole=*/{60, 1},
                       {.window = window}});
    }
    CheckRings(d, rings);
  }
}

TEST(RingAttentionWindow, OnOtherOrdersDelaysAndTheWire) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    RankThreadOptions options;
    options.network.max_delay = absl::Milliseconds(2);
    options.network.seed = seed;
    options.network.eager_bytes = seed % 2 == 0 ? 0 : 4096;
    const int64_t window = 11 + 20 * static_cast<int64_t>(seed);
    CheckRings(4,
               {{{2, 0, 3, 1}, {120, 33}, {.window = window}, 0, {20}, {.window = window}},
                {{1, 2}, {150}, {.window = window}, 0, {}, {DType::kBF16, window}}},
               options);
  }
}

TEST(RingAttentionWindow, MembersOutsideDoNotCommunicate) {
  // Parts of 10 tokens: a window of 4 reaches 3 tokens back, over each of the 7 borders between
  // parts, and the one in the middle lies within member 3.
  int64_t rows = 0;
  for (int member = 0; member < 4; ++member) {
    const RingLayout layout{{0, 1, 2, 3}, member, {80}};
    rows += RingForwardBytes(layout, {.window = 4}, {}) / (2 * 4);
    EXPECT_EQ(
        RingBackwardBytes(layout, {.window = 4}, {}) - RingForwardBytes(layout, {.window = 4}, {}),
        2 * 4 * 3 *
            (member == 0   ? 1
             : member == 3 ? 1
                           : 2));
  }
  EXPECT_EQ(rows, 6 * 3);
}

TEST(RingAttentionWire, Bf16IsRoundedAndNoMore) {
  for (int d : {2, 3, 5}) {
    CheckRings(d, {{Ascending(d), {190, 33}, {.heads = 4, .kv_heads = 2}, 0, {70}, {DType::kBF16}},
                   {Ascending(d), {2 * d - 1}, {}, /*gap=*/4, {}, {DType::kBF16}}});
  }
}

TEST(RingAttentionBytes, AreTheLeastThereIs) {
  // d = 4, 80 tokens: parts of 10 tokens. Keys and values: 1.5 d (d - 1) parts. Gradients: (d - 1)
  // hops of two parts, one for member 0.
  const int64_t part = 10 * 2 * 16 * 4;
  for (DType wire : {DType::kF32, DType::kBF16}) {
    int64_t forward = 0, backward = 0;
    for (int member = 0; member < 4; ++member) {
      const RingLayout layout{{0, 1, 2, 3}, member, {80}};
      forward += RingForwardBytes(layout, {.wire = wire}, {.head_dim = 16});
      backward += RingBackwardBytes(layout, {.wire = wire}, {.head_dim = 16});
    }
    const int64_t keys_and_values = 18 * part * SizeOf(wire) / 4;
    EXPECT_EQ(forward, keys_and_values);
    EXPECT_EQ(backward, keys_and_values + 3 * 7 * part);
  }
}

// Heads split inside blocks of h neighbours, and a ring between the blocks: d = h * m members.
struct HeadSplit {
  int members, head_parallel;
};

class RingAttentionHeads : public ::testing::TestWithParam<HeadSplit> {
 protected:
  const int d = GetParam().members, h = GetParam().head_parallel;
  // Rings of d members that split heads by h.
  Ring Split(std::vector<int64_t> lengths, Shape shape, int64_t gap = 0,
             std::vector<int64_t> whole = {}, AttentionOptions options = {}) const {
    return {Ascending(d), std::move(lengths), shape, gap, std::move(whole), options, h};
  }
  const Shape one_each{.heads = h, .kv_heads = h};
};

TEST_P(RingAttentionHeads, AnyLength) {
  std::vector<Ring> rings;
  for (int64_t length : {1, 2, 2 * d - 1, 2 * d, 2 * d + 1, 97, 128 + 64, 211}) {
    rings.push_back(Split({length}, one_each));
  }
  CheckRings(d, rings);
}

TEST_P(RingAttentionHeads, SeveralSequencesInOneRing) {
  CheckRings(d, {Split({50, 2 * d + 1, 1, 2 * d - 1, 101, 3, 64}, one_each),
                 Split({1, 1, 2}, one_each), Split({2 * d - 1, 120}, one_each, /*gap=*/16)});
}

TEST_P(RingAttentionHeads, GroupedQueries) {
  CheckRings(d, {Split({83, 40}, {.heads = 8 * h, .kv_heads = h, .head_dim = 16}),
                 Split({90}, {.heads = 4 * h, .kv_heads = 2 * h, .head_dim = 8}, /*gap=*/4),
                 Split({60, 7}, {.heads = 3 * h, .kv_heads = 3 * h, .head_dim = 4})});
}

TEST_P(RingAttentionHeads, ScoresFarFromZero) {
  Shape low = one_each, high = one_each;
  low.shift = -140;
  high.shift = 140;
  CheckRings(d, {Split({75, 9}, low), Split({75}, high)});
}

TEST_P(RingAttentionHeads, RandomDelaysAndBufferedSends) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    RankThreadOptions options;
    options.network.max_delay = absl::Milliseconds(3);
    options.network.seed = seed;
    options.network.eager_bytes = seed % 2 == 0 ? 0 : 4096;
    options.threads_per_rank = 1 + static_cast<int>(seed / 2);
    CheckRings(d, {Split({77, 5, 2 * d + 1}, one_each, /*gap=*/8), Split({150}, one_each)},
               options);
  }
}

TEST_P(RingAttentionHeads, OrderNeedNotAscend) {
  Ring ring = Split({61, 30}, one_each);
  std::mt19937_64 random(d);
  for (int i = 0; i < 3; ++i) {
    std::shuffle(ring.ranks.begin(), ring.ranks.end(), random);
    CheckRings(d, {ring});
  }
}

TEST_P(RingAttentionHeads, WholeSequencesAreComputedToo) {
  CheckRings(
      d, {Split({90, 7}, one_each, /*gap=*/8, /*whole=*/{5, 1, 40}), Split({1}, one_each, 0, {400}),
          Split({150}, {.heads = 2 * h, .kv_heads = h}, 0, {200, 3, 260})});
}

TEST_P(RingAttentionHeads, Bf16IsRoundedAndNoMore) {
  CheckRings(d, {Split({190, 33}, {.heads = 2 * h, .kv_heads = h}, 0, {70}, {DType::kBF16}),
                 Split({2 * d - 1}, one_each, /*gap=*/4, {}, {DType::kBF16})});
}

TEST_P(RingAttentionHeads, AreLeftWholeByAWindow) {
  Shape shape = one_each;
  shape.window = 40;
  CheckRings(d, {Split({97, 30}, shape, 0, {60}, {.window = 40})});
  // No sequence of the ring is longer than this one: heads are split as without it.
  shape.window = 97;
  CheckRings(d, {Split({97, 30}, shape, 0, {60}, {.window = 97})});
  const RingLayout split{Ascending(d), 0, {97, 30}, h}, not_split{Ascending(d), 0, {97, 30}};
  EXPECT_EQ(RingForwardBytes(split, {.window = 40}, shape.counts()),
            RingForwardBytes(not_split, {.window = 40}, shape.counts()));
  EXPECT_NE(RingForwardBytes(split, {.window = 97}, shape.counts()),
            RingForwardBytes(not_split, {.window = 97}, shape.counts()));
}

INSTANTIATE_TEST_SUITE_P(Splits, RingAttentionHeads,
                         ::testing::Values(HeadSplit{2, 2}, HeadSplit{4, 2}, HeadSplit{4, 4},
                                           HeadSplit{6, 2}, HeadSplit{8, 2}, HeadSplit{8, 4}),
                         [](const auto& test) {
                           return absl::StrCat(test.param.members, "By", test.param.head_parallel);
                         });

TEST(RingAttentionBytes, SplitHeadsSendFewer) {
  // d = 8, h = 4: blocks of a quarter of the heads, two members. 160 tokens: parts of 10. With a
  // ring of m members 1.5 m (m - 1) united parts of a quarter of keys and values travel in each of
  // 4 rings, and (m - 1) hops of two, one for member 0, of the gradients.
  const HeadCounts heads{.heads = 8, .kv_heads = 4, .head_dim = 16};
  const int64_t q = 8 * 16, kv = 4 * 16, part = 10 * 4 * 2 * kv / 4;
  for (DType wire : {DType::kF32, DType::kBF16}) {
    int64_t forward = 0, backward = 0;
    for (int member = 0; member < 8; ++member) {
      const RingLayout layout{{0, 1, 2, 3, 4, 5, 6, 7}, member, {160}, 4};
      forward += RingForwardBytes(layout, {.wire = wire}, heads);
      backward += RingBackwardBytes(layout, {.wire = wire}, heads);
    }
    // Every row goes to three members and comes back from them, a quarter of it each time: once q,
    // k, v and O with L, and in the backward pass q, k, v, dO, L and delta for dQ, dK and dV.
    const int64_t rows = 160 * 3;
    const int64_t exchanged_forward = rows * ((q + 2 * kv) + (q + 8)) / 4;
    const int64_t exchanged_backward = rows * ((2 * q + 2 * kv + 2 * 8) + (q + 2 * kv)) / 4;
    const int64_t keys_and_values = 4 * 3 * part * SizeOf(wire);
    EXPECT_EQ(forward, keys_and_values + 4 * exchanged_forward);
    EXPECT_EQ(backward, keys_and_values + 4 * 3 * part * 4 + 4 * exchanged_backward);
  }
}

TEST(RingAttentionFailure, AnAbortEndsTheRing) {
  RankThreadOptions options;
  options.timeout = absl::Seconds(30);
  std::vector<Sequence> sequences = {RandomSequence(90, {}, 1)};
  std::vector<Result> results = UnsetResults(sequences, {});
  std::vector<absl::Status> ends(3);
  const absl::Status status = RunRanks(
      3,
      [&](Transport& transport, Device& device) -> absl::Status {
        if (transport.rank() == 1) return absl::DataLossError("rank 1 has had enough");
        Bytes bytes;
        return ends[transport.rank()] =
                   RunMember({RingLayout{{0, 1, 2}, transport.rank(), {90}}, {}, {0}, {}}, {}, 0,
                             sequences, transport, device, results, bytes);
      },
      options);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  for (int rank : {0, 2}) EXPECT_TRUE(absl::IsUnavailable(ends[rank])) << ends[rank];
}

}  // namespace
}  // namespace longspan
