// Sequences with random queries, keys and values; their attention by the definition, on one rank,
// and as the members of a ring compute it. What tests of ring attention share.
#ifndef LONGSPAN_TESTS_PARALLEL_ATTENTION_SEQUENCES_H_
#define LONGSPAN_TESTS_PARALLEL_ATTENTION_SEQUENCES_H_

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "parallel/ring_attention.h"
#include "parallel/transport/transport.h"

namespace longspan {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct AttentionShape {
  int heads = 2;
  int kv_heads = 1;
  int head_dim = 8;
  float shift = 0;     // of all scores
  int64_t window = 0;  // positions that a query sees; 0: all before it
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  int64_t q_width() const { return int64_t{heads} * head_dim; }
  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
  HeadCounts counts() const { return {heads, kv_heads, head_dim}; }
};

// One whole sequence: inputs, and results of any of the ways to compute them.
struct Sequence {
  int64_t length = 0;
  std::vector<float> q, k, v, dout;
};
struct Result {
  std::vector<double> out, lse, dq, dk, dv;
  // Of the reference: the absolute values of the terms that dq and dk are sums of, added up.
  std::vector<double> dq_terms, dk_terms;
};

Sequence RandomSequence(int64_t length, const AttentionShape& shape, uint64_t seed);
// NaN everywhere.
Result UnsetResult(const Sequence& sequence, const AttentionShape& shape);
// By the definition, in FP64.
Result BruteForce(const Sequence& s, const AttentionShape& shape);
// With the same kernels on one rank.
Result SingleRank(const Sequence& s, const AttentionShape& shape);
// `reference` is BruteForce's, which sets the scales; norm-wise, within 1e-6 * max(5, |L| / 5), or
// what rounding keys and values to bf16 explains.
void ExpectNear(const Result& got, const Result& expected, const Result& reference,
                const AttentionShape& shape, DType wire, const std::string& what);

// What one member computes: its share of a ring, and whole sequences in the rows after it.
struct Member {
  std::optional<RingLayout> layout;
  std::vector<int64_t> whole;     // lengths
  std::vector<size_t> sequences;  // the ring's, then the whole ones: indices among all sequences
  AttentionOptions options;

  int64_t rows() const;
  std::vector<AttentionSpan> WholeSpans() const;
};

// A member's tensors, with poisoned rows behind its own and columns between them, and the work on
// them.
class MemberRun {
 public:
  // `gap`: columns between rows. `sequences` and `results` are of all sequences.
  MemberRun(Member member, const AttentionShape& shape, int64_t gap,
            const std::vector<Sequence>& sequences);
  ~MemberRun();
  MemberRun(MemberRun&&) noexcept;

  absl::Status QueueForward(Transport& transport, Stream& stream, RingWorkspace* workspace);
  absl::Status QueueBackward(Transport& transport, Stream& stream, RingWorkspace* workspace);
  // After the stream is done. An error if anything outside of the rows was written.
  absl::Status Collect(std::vector<Result>& results) const;

 private:
  struct Tensors;
  Member member_;
  AttentionShape shape_;
  std::unique_ptr<Tensors> tensors_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_PARALLEL_ATTENTION_SEQUENCES_H_
