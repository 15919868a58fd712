// StepPlan: everything every rank does in one training step. A pure value; the public JSON form is
// "longspan-plan".
//
// Terms (ByteScale, arXiv 2502.21231, and interface notes in parallel/README.md):
//  - a sequence has `length` inputs and as many targets; sequences are numbered by their place in
//    the global batch;
//  - a slice is what one rank holds of one sequence: half-open ranges of the sequence's positions;
//  - a group is the ordered list of ranks that share one long sequence; a member's index decides
//    its zigzag parts;
//  - a ring is the set of groups that one micro-batch takes part in: all with the same ordered rank
//    list. It has one micro-batch, with the same groups in the same order, on each of its ranks;
//    those run together. Its number is that of its lowest group.
#ifndef LONGSPAN_PARALLEL_PLAN_H_
#define LONGSPAN_PARALLEL_PLAN_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longspan {

// Positions [begin, end) of a sequence.
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

// Of one slice: ascending, no empty and no adjacent ones. A zigzag share has at most two.
using TokenRanges = absl::InlinedVector<TokenRange, 2>;

struct SequenceSlice {
  int64_t sequence = 0;
  int64_t group = -1;  // index into StepPlan::groups; -1: the whole sequence, no messages
  TokenRanges ranges;
  int64_t tokens() const;
  friend bool operator==(const SequenceSlice&, const SequenceSlice&) = default;
};

// What one rank processes together.
struct MicroBatch {
  std::vector<SequenceSlice> slices;
  int64_t tokens() const;
  friend bool operator==(const MicroBatch&, const MicroBatch&) = default;
};

// The ordered ranks that share one long sequence.
struct SequenceGroup {
  int64_t sequence = 0;
  std::vector<int> ranks;
  // So many neighbours in `ranks` split the heads of attention between them; the ring of keys and
  // values runs over ranks.size() / head_parallel members, for each share of the heads. 1: ring
  // alone.
  int head_parallel = 1;
  friend bool operator==(const SequenceGroup&, const SequenceGroup&) = default;
};

struct PlanCertificate {
  double makespan_seconds = 0;
  double lower_bound_seconds = 0;
  double gap = 0;                                                  // makespan / lower bound - 1
  double area_seconds = 0, longest_seconds = 0, wide_seconds = 0;  // the bounds, see Certify
  double planning_seconds = 0;  // not part of the plan's identity
};

struct StepPlan {
  int ranks = 1;
  int64_t micro_batch_tokens = 0;  // capacity C of a micro-batch, even
  std::vector<int64_t> lengths;    // of the global batch, by sequence
  std::vector<SequenceGroup> groups;
  std::vector<std::vector<MicroBatch>> micro_batches;  // by rank, in execution order
  PlanCertificate certificate;

  // Sum of all lengths: the number N of targets of the step.
  int64_t total_tokens() const;
};

// The two zigzag ranges of member `member` of `members` ranks for a sequence of `length` tokens:
// parts member and 2 * members - 1 - member of 2 * members parts cut at floor(k * length / (2 *
// members)). A range may be empty.
std::array<TokenRange, 2> ZigzagRanges(int64_t length, int members, int member);

// The same as a slice's `ranges`: empty ones left out, adjacent ones merged.
TokenRanges ZigzagSliceRanges(int64_t length, int members, int member);

// A 64-bit hash of everything but the certificate. Equal plans have equal hashes on every machine.
uint64_t HashOf(const StepPlan& plan);

// Checks every rule of the format: each token of each sequence in exactly one slice, capacity kept,
// group slices are the zigzag ranges of their member, the ring rules above, and that executing the
// lists in order cannot deadlock. InvalidArgument names the rank, micro-batch and sequence that
// break a rule.
absl::Status Validate(const StepPlan& plan);

// The public JSON form, version 1. FromJson ignores unknown keys and refuses a newer version by
// name.
std::string ToJson(const StepPlan& plan);
absl::StatusOr<StepPlan> StepPlanFromJson(const std::string& json);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_PLAN_H_
