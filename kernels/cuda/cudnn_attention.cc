#include "kernels/cuda/cudnn_attention.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"

namespace longspan::cuda {
namespace {

using Tensor = CudnnGraph::Tensor;
using Extents = CudnnGraph::Extents;
using Pass = AttentionGraphShape::Pass;

constexpr cudnnDataType_t kF32 = CUDNN_DATA_FLOAT;
constexpr cudnnDataType_t kBF16 = CUDNN_DATA_BFLOAT16;
constexpr cudnnDataType_t kI32 = CUDNN_DATA_INT32;
constexpr cudnnDataType_t kI64 = CUDNN_DATA_INT64;
constexpr cudnnDataType_t kBool = CUDNN_DATA_BOOLEAN;

int64_t PowerOfTwoFrom(int64_t least) {
  int64_t power = 1;
  while (power < least) power *= 2;
  return power;
}

int64_t BucketRows(int64_t rows) {
  const int64_t power = std::max<int64_t>(128, PowerOfTwoFrom(rows));
  return power >= 512 && rows <= power / 4 * 3 ? power / 4 * 3 : power;
}

// Both passes: operands, scores and their mask.
class AttentionGraph {
 public:
  AttentionGraph(const CudnnLibrary& library, const AttentionGraphShape& shape)
      : shape_(shape), graph_(library) {
    const int64_t b = shape.documents;
    const auto offsets = [&] { return graph_.Memory({b + 1, 1, 1, 1}, {1, 1, 1, 1}, kI64); };
    const auto counts = [&] { return graph_.Memory({b, 1, 1, 1}, {1, 1, 1, 1}, kI32); };
    query_offsets_ = offsets();
    key_offsets_ = offsets();
    stats_offsets_ = offsets();
    gradient_offsets_ = offsets();
    query_counts_ = counts();
    key_counts_ = counts();
    ids_.query_offsets = query_offsets_.id;
    ids_.key_offsets = key_offsets_.id;
    ids_.stats_offsets = stats_offsets_.id;
    ids_.gradient_offsets = gradient_offsets_.id;
    ids_.query_counts = query_counts_.id;
    ids_.key_counts = key_counts_.id;
    visible_keys_ = key_counts_;
    if (shape.pads_keys) {
      visible_keys_ = counts();
      ids_.visible_keys = visible_keys_.id;
    }
    aligned_keys_ = visible_keys_;
    if (shape.window > 0) {
      aligned_keys_ = counts();
      ids_.aligned_keys = aligned_keys_.id;
    }
  }

  void AddForward();
  void AddBackward();
  absl::StatusOr<AttentionPlan> Plan(const CudnnTarget& target) {
    absl::StatusOr<CudnnPlan> plan = std::move(graph_).Plan(target);
    if (!plan.ok()) return plan.status();
    return AttentionPlan{shape_, *std::move(plan), ids_};
  }

 private:
  // {documents, heads, rows, head_dim}, packed by rows.
  Extents Rows(int64_t heads, int64_t rows) const {
    return {shape_.documents, heads, rows, shape_.head_dim};
  }
  Extents RowStrides(int64_t heads, int64_t rows) const {
    return {rows * heads * shape_.head_dim, shape_.head_dim, heads * shape_.head_dim, 1};
  }
  Tensor Queries(cudnnDataType_t type) {
    return graph_.Memory(Rows(shape_.heads, shape_.query_rows),
                         RowStrides(shape_.heads, shape_.query_rows), type, &query_offsets_);
  }
  Tensor KeyGradients() {
    return graph_.Memory(Rows(shape_.heads, shape_.key_rows),
                         RowStrides(shape_.heads, shape_.key_rows), kF32, &gradient_offsets_);
  }
  Tensor Keys() {
    return graph_.Memory(Rows(shape_.kv_heads, shape_.key_rows),
                         RowStrides(shape_.kv_heads, shape_.key_rows), kBF16, &key_offsets_);
  }
  // The same memory as Keys(), rows and columns exchanged.
  Tensor KeysAcross() {
    Extents extents = Rows(shape_.kv_heads, shape_.key_rows);
    Extents strides = RowStrides(shape_.kv_heads, shape_.key_rows);
    std::swap(extents[2], extents[3]);
    std::swap(strides[2], strides[3]);
    return graph_.Memory(extents, strides, kBF16, &key_offsets_);
  }
  Extents ScoreExtents() const {
    return {shape_.documents, shape_.heads, shape_.query_rows, shape_.key_rows};
  }
  Tensor VirtualScores() {
    const int64_t across = shape_.key_rows, area = shape_.query_rows * across;
    return graph_.Virtual(ScoreExtents(), {shape_.heads * area, area, across, 1}, kF32);
  }
  // One number for each row and head, between operations.
  Tensor VirtualPerRow() {
    return graph_.Virtual({shape_.documents, shape_.heads, shape_.query_rows, 1},
                          {shape_.heads * shape_.query_rows, shape_.query_rows, 1, 1}, kF32);
  }
  // The same in memory: heads next to each other. (With the rows of a head next to each other some
  // versions write gradients of zero.)
  Tensor PerRow() {
    return graph_.Memory({shape_.documents, shape_.heads, shape_.query_rows, 1},
                         {shape_.heads * shape_.query_rows, 1, shape_.heads, 1}, kF32,
                         &stats_offsets_);
  }
  Tensor Compare(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor& b) {
    Tensor y = graph_.VirtualLike(x, kBool);
    graph_.Pointwise(mode, x, b, y, kBool);
    return y;
  }
  Tensor AddI32(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor& b) {
    Tensor y = graph_.VirtualLike(x, kI32);
    graph_.Pointwise(mode, x, b, y, kI32);
    return y;
  }
  // x with the elements outside of the documents at -inf.
  Tensor MaskPadding(const Tensor& x) {
    const Tensor row = graph_.Index(x, 2), column = graph_.Index(x, 3);
    const Tensor in_row = Compare(CUDNN_POINTWISE_CMP_LT, row, query_counts_);
    const Tensor in_column = Compare(CUDNN_POINTWISE_CMP_LT, column, visible_keys_);
    return graph_.Select(Compare(CUDNN_POINTWISE_LOGICAL_AND, in_row, in_column), x,
                         MinusInfinity());
  }
  // x with the keys behind each query at -inf.
  Tensor MaskLater(const Tensor& x) {
    return graph_.Select(Compare(CUDNN_POINTWISE_CMP_GE, AlignedRow(x), graph_.Index(x, 3)), x,
                         MinusInfinity());
  }
  // x with the keys in front of each query's window at -inf.
  Tensor MaskEarlier(const Tensor& x) {
    const Tensor width = graph_.Scalar(kI32);
    ids_.window = width.id;
    const Tensor column = AddI32(CUDNN_POINTWISE_ADD, graph_.Index(x, 3), width);
    return graph_.Select(Compare(CUDNN_POINTWISE_CMP_GT, column, AlignedRow(x)), x,
                         MinusInfinity());
  }
  // The index of the last key that each query sees: row + aligned keys - queries.
  Tensor AlignedRow(const Tensor& x) {
    const Tensor row = AddI32(CUDNN_POINTWISE_ADD, graph_.Index(x, 2), aligned_keys_);
    return AddI32(CUDNN_POINTWISE_SUB, row, query_counts_);
  }
  Tensor MinusInfinity() {
    if (ids_.minus_infinity == 0) {
      minus_infinity_ = graph_.Scalar(kF32);
      ids_.minus_infinity = minus_infinity_.id;
    }
    return minus_infinity_;
  }
  Tensor ScaledScores(const Tensor& q, const Tensor& k_across, bool pads_with_zeros) {
    const Tensor scale = graph_.Scalar(kF32);
    ids_.scale = scale.id;
    scale_ = scale;
    const Tensor scores = VirtualScores(), scaled = VirtualScores();
    graph_.Matmul(q, k_across, scores,
                  {.m = &query_counts_, .n = &key_counts_, .pads_with_zeros = pads_with_zeros});
    graph_.Pointwise(CUDNN_POINTWISE_MUL, scores, scale, scaled);
    return scaled;
  }
  // gradient = x^T * dy for keys or values, where x: (queries, keys).
  void AddKeyGradient(const Tensor& x, const Tensor& dy, const Tensor& gradient);

  const AttentionGraphShape shape_;
  CudnnGraph graph_;
  AttentionPlan::Ids ids_;
  Tensor query_offsets_, key_offsets_, stats_offsets_, gradient_offsets_;
  Tensor query_counts_, key_counts_, visible_keys_, aligned_keys_;
  Tensor scale_, minus_infinity_;
};

void AttentionGraph::AddForward() {
  const Tensor q = Queries(kBF16), k = KeysAcross(), v = Keys(), out = Queries(kF32);
  const Tensor stats = PerRow();
  ids_.q = q.id;
  ids_.k = k.id;
  ids_.v = v.id;
  ids_.out = out.id;
  ids_.stats = stats.id;
  Tensor scores = MaskPadding(ScaledScores(q, k, true));
  if (shape_.causal) scores = MaskLater(scores);
  if (shape_.window > 0) scores = MaskEarlier(scores);
  const Tensor largest = VirtualPerRow(), sum = VirtualPerRow(), logarithm = VirtualPerRow();
  const Tensor lowered = VirtualScores(), exponential = VirtualScores();
  graph_.Reduce(CUDNN_REDUCE_TENSOR_MAX, scores, largest);
  graph_.Pointwise(CUDNN_POINTWISE_SUB, scores, largest, lowered);
  graph_.Pointwise(CUDNN_POINTWISE_EXP, lowered, exponential);
  graph_.Reduce(CUDNN_REDUCE_TENSOR_ADD, exponential, sum);
  graph_.Pointwise(CUDNN_POINTWISE_LOG, sum, logarithm);
  graph_.Pointwise(CUDNN_POINTWISE_ADD, largest, logarithm, stats);
  const Tensor probabilities = graph_.VirtualLike(scores, kBF16);
  graph_.Pointwise(CUDNN_POINTWISE_DIV, exponential, sum, probabilities);
  graph_.Matmul(probabilities, v, out, {.m = &query_counts_, .k = &key_counts_});
}

void AttentionGraph::AddKeyGradient(const Tensor& x, const Tensor& dy, const Tensor& gradient) {
  const int64_t area = shape_.query_rows * shape_.key_rows;
  const Tensor across =
      graph_.Virtual({shape_.documents, shape_.heads, shape_.key_rows, shape_.query_rows},
                     {shape_.heads * area, area, 1, shape_.key_rows}, kBF16);
  graph_.Reshape(x, across);
  graph_.Matmul(across, dy, gradient, {.m = &key_counts_, .k = &query_counts_});
}

void AttentionGraph::AddBackward() {
  const Tensor q = Queries(kBF16), k = KeysAcross(), v = KeysAcross();
  const Tensor out = Queries(kF32), dout = Queries(kBF16), stats = PerRow();
  const Tensor dq = Queries(shape_.deterministic ? kBF16 : kF32);
  const Tensor dk = KeyGradients(), dv = KeyGradients();
  ids_.q = q.id;
  ids_.k = k.id;
  ids_.v = v.id;
  ids_.out = out.id;
  ids_.dout = dout.id;
  ids_.stats = stats.id;
  ids_.dq = dq.id;
  ids_.dk = dk.id;
  ids_.dv = dv.id;

  // delta = the sum over head_dim of dout * out.
  const int64_t d = shape_.head_dim, rows = shape_.query_rows;
  const Tensor product =
      graph_.Virtual(Rows(shape_.heads, rows), {shape_.heads * rows * d, rows * d, d, 1}, kF32);
  const Tensor row_sums = VirtualPerRow(), delta = PerRow(), one = graph_.Scalar(kF32);
  ids_.delta = delta.id;
  ids_.one = one.id;
  graph_.Pointwise(CUDNN_POINTWISE_MUL, dout, out, product);
  graph_.Reduce(CUDNN_REDUCE_TENSOR_ADD, product, row_sums);
  graph_.Pointwise(CUDNN_POINTWISE_MUL, row_sums, one, delta);

  // p = exp(scores - stats), with the stats of all keys of a ring, not of this call's alone.
  Tensor scores = MaskPadding(ScaledScores(q, k, false));
  const Tensor lowered = VirtualScores(), p = VirtualScores();
  graph_.Pointwise(CUDNN_POINTWISE_SUB, scores, stats, lowered);
  scores = lowered;
  if (shape_.causal) scores = MaskLater(scores);
  if (shape_.window > 0) scores = MaskEarlier(scores);
  graph_.Pointwise(CUDNN_POINTWISE_EXP, scores, p);
  AddKeyGradient(p, dout, dv);

  // ds = p * (dout * v^T - delta) * scale.
  const Tensor dp = VirtualScores(), centred = VirtualScores(), weighted = VirtualScores();
  const Tensor ds = graph_.VirtualLike(dp, kBF16);
  graph_.Matmul(dout, v, dp, {.m = &query_counts_, .n = &key_counts_});
  graph_.Pointwise(CUDNN_POINTWISE_SUB, dp, delta, centred);
  graph_.Pointwise(CUDNN_POINTWISE_MUL, centred, p, weighted);
  graph_.Pointwise(CUDNN_POINTWISE_MUL, weighted, scale_, ds);
  AddKeyGradient(ds, q, dk);

  const Tensor k_rows =
      graph_.Virtual(Rows(shape_.kv_heads, shape_.key_rows),
                     RowStrides(shape_.kv_heads, shape_.key_rows), kBF16, &key_offsets_);
  graph_.Reshape(k, k_rows);
  graph_.Matmul(ds, k_rows, dq, {.m = &query_counts_, .k = &key_counts_});
}

}  // namespace

std::string AttentionGraphShape::ToString() const {
  return absl::StrCat(
      pass == Pass::kForward ? "forward" : "backward", ", ", heads, " heads (", kv_heads,
      " of keys) of ", head_dim, ", ", documents, " documents of at most ", query_rows, " x ",
      key_rows, causal ? ", causal" : ", full", window > 0 ? absl::StrCat(", window ", window) : "",
      pads_keys ? ", padded keys" : "", deterministic ? ", deterministic" : "");
}

AttentionGraphShape Bucketed(const AttentionGraphShape& exact) {
  AttentionGraphShape bucket = exact;
  bucket.query_rows = BucketRows(exact.query_rows);
  bucket.key_rows = BucketRows(exact.key_rows);
  // Its width is given at every run.
  bucket.window = exact.window > 0 ? 1 : 0;
  if (exact.pass == Pass::kForward) bucket.deterministic = false;
  return bucket;
}

absl::StatusOr<AttentionPlan> PlanAttention(const CudnnLibrary& library, const CudnnTarget& target,
                                            const AttentionGraphShape& shape) {
  LONGSPAN_CHECK(shape.documents >= 1 && shape.query_rows >= 1 && shape.key_rows >= 1,
                 "a graph of attention has documents with queries and keys");
  LONGSPAN_CHECK(shape.query_rows % 128 == 0 && shape.key_rows % 128 == 0,
                 "rows of a graph of attention are multiples of 128");
  LONGSPAN_CHECK(shape.kv_heads >= 1 && shape.heads % shape.kv_heads == 0,
                 "heads must be a multiple of kv_heads");
  LONGSPAN_CHECK(shape.window == 0 || shape.causal, "a window goes with the causal mask");
  AttentionGraph graph(library, shape);
  if (shape.pass == Pass::kForward) {
    graph.AddForward();
  } else {
    graph.AddBackward();
  }
  absl::StatusOr<AttentionPlan> plan = graph.Plan(target);
  if (plan.ok()) return plan;
  return absl::Status(plan.status().code(), absl::StrCat("attention (", shape.ToString(),
                                                         "): ", plan.status().message()));
}

absl::StatusOr<std::shared_ptr<const AttentionPlan>> AttentionPlanner::PlanFor(
    const AttentionGraphShape& shape) {
  const AttentionGraphShape bucket = Bucketed(shape);
  std::unique_lock lock(mutex_);
  const auto [at, is_new] = entries_.try_emplace(bucket);
  Entry& entry = at->second;
  if (is_new) {
    lock.unlock();
    absl::StatusOr<AttentionPlan> made = PlanAttention(library_, target_, bucket);
    lock.lock();
    if (made.ok()) {
      entry.plan = std::make_shared<const AttentionPlan>(*std::move(made));
    } else {
      entry.refusal = made.status();
    }
    entry.done = true;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return entry.done; });
  if (!entry.refusal.ok()) return entry.refusal;
  return entry.plan;
}

int64_t AttentionPlanner::plans() const {
  std::lock_guard lock(mutex_);
  int64_t count = 0;
  for (const auto& [shape, entry] : entries_) count += entry.plan != nullptr ? 1 : 0;
  return count;
}

}  // namespace longspan::cuda
