#include "parallel/ring_attention.h"

#include <algorithm>
#include <utility>

#include "kernels/device/check.h"
#include "kernels/device/trace.h"
#include "kernels/elementwise.h"
#include "parallel/head_exchange.h"
#include "parallel/ring_pass.h"
#include "parallel/span_portions.h"
#include "parallel/window_attention.h"

namespace longspan {

namespace {

HeadCounts CheckShapes(const RingLayout& layout, const TensorView& q, const TensorView& k,
                       const TensorView& v) {
  const int64_t rows = layout.rows();
  LONGSPAN_CHECK(layout.ranks.size() >= 2, "a ring has at least two members");
  LONGSPAN_CHECK(q.rank() == 3 && k.rank() == 3 && v.rank() == 3,
                 "ring attention: q, k, v are (rows, heads, head_dim)");
  LONGSPAN_CHECK(q.dim(0) >= rows && k.dim(0) >= rows && v.dim(0) >= rows,
                 "ring attention: the tensors hold fewer rows than the layout");
  LONGSPAN_CHECK(k.dim(1) == v.dim(1) && k.dim(2) == v.dim(2) && q.dim(2) == k.dim(2) &&
                     q.dim(1) % k.dim(1) == 0,
                 "ring attention: heads or head_dim do not match");
  return {q.dim(1), k.dim(1), k.dim(2)};
}

// Some query of the ring does not see all that is before it.
bool WindowMatters(const RingLayout& layout, const AttentionOptions& options) {
  LONGSPAN_CHECK(options.window >= 0, "the window is negative");
  return options.window > 0 &&
         *std::max_element(layout.lengths.begin(), layout.lengths.end()) > options.window;
}

// Those that one member of a block has.
HeadCounts PartOf(const HeadCounts& heads, int head_parallel) {
  LONGSPAN_CHECK(heads.kv_heads % head_parallel == 0,
                 "the width of head parallelism divides the number of heads of keys and values");
  return {heads.heads / head_parallel, heads.kv_heads / head_parallel, heads.head_dim};
}

// Elements of a row that travels between the members of a block, of one member's heads.
struct ExchangedRow {
  explicit ExchangedRow(const HeadCounts& part)
      : forward_in(part.q_width() + 2 * part.kv_width()),
        forward_out(part.q_width() + part.heads),
        backward_in(2 * part.q_width() + 2 * part.kv_width() + 2 * part.heads),
        backward_out(part.q_width() + 2 * part.kv_width()) {}
  int64_t forward_in;    // q, k, v
  int64_t forward_out;   // O, L
  int64_t backward_in;   // q, k, v, dO, L, delta
  int64_t backward_out;  // dQ, dK, dV
};

// Adds the tensors of a pass of the ring of a block's heads, and those of the exchanges. `narrow`
// elements of a row are of a dtype `compute` that is not f32.
std::vector<WorkspaceShape> WithExchange(std::vector<WorkspaceShape> shapes,
                                         const HeadExchange& exchange, int64_t in, int64_t out,
                                         DType compute, int64_t narrow) {
  const int64_t rows = exchange.ring().rows();
  shapes.push_back({rows, in});
  shapes.push_back({rows, out});
  shapes.push_back({exchange.ScratchRows(), std::max(in, out)});
  shapes.push_back({compute == DType::kF32 ? 0 : rows, narrow, compute});
  return shapes;
}

// What attention takes of rows that arrived as f32: the first `count` of `fields` in `in`, or where
// those are narrower a rounded copy in `narrow`.
std::vector<TensorView> Arrived(const HeadExchange& exchange, const std::vector<TensorView>& fields,
                                size_t count, const TensorView& in, const TensorView& narrow,
                                Stream& stream) {
  std::vector<TensorView> arrived;
  for (size_t i = 0; i < count; ++i) {
    arrived.push_back(exchange.FieldIn(in, fields, i));
    if (fields[i].dtype() == DType::kF32) continue;
    const TensorView copy = exchange.FieldIn(narrow, fields, i);
    if (!copy.empty()) Convert(arrived[i], copy, stream);
    arrived[i] = copy;
  }
  return arrived;
}

// The forward pass with heads split inside blocks. beside(0) fills the first exchange, the next
// ones the steps of the ring, the last one the other exchange.
absl::Status HeadParallelForward(const RingLayout& layout, const HeadCounts& heads,
                                 const std::vector<AttentionSpan>& whole, DType wire,
                                 const TensorView& q, const TensorView& k, const TensorView& v,
                                 float scale, const TensorView& out, const TensorView& lse,
                                 Transport& transport, Stream& stream, RingWorkspace* shared) {
  const HeadExchange exchange(layout);
  const RingLayout& ring = exchange.ring();
  const int steps = static_cast<int>(ring.ranks.size()) - 1;
  const HeadCounts part = PartOf(heads, layout.head_parallel);
  const ExchangedRow row(part);
  const std::vector<WorkspaceShape> shapes = RingForwardShapes(ring, wire, k.dtype(), part);
  const size_t mine = shapes.size();
  absl::StatusOr<WorkspaceTensors> workspace =
      WorkspaceTensors::Allocate(stream.device().memory(),
                                 WithExchange(shapes, exchange, row.forward_in, row.forward_out,
                                              k.dtype(), part.q_width() + 2 * part.kv_width()),
                                 shared);
  if (!workspace.ok()) return workspace.status();
  const TensorView &in = (*workspace)[mine], &result = (*workspace)[mine + 1],
                   &scratch = (*workspace)[mine + 2], &narrow = (*workspace)[mine + 3];

  std::vector<double> weights(steps + 2, static_cast<double>(ring.rows() * 2 * part.kv_width()));
  weights.front() = static_cast<double>(exchange.SentToHeads(row.forward_in));
  weights.back() = static_cast<double>(exchange.SentToRows(row.forward_out));
  const std::vector<std::vector<AttentionSpan>> portions = SpanPortions(whole, weights);
  const auto beside = [&](int portion) {
    if (!portions[portion].empty()) {
      AttentionForward(q, k, v, portions[portion], scale, out, lse, stream);
    }
  };

  const std::vector<TensorView> inputs = {q, k, v}, results = {out, lse};
  {
    const StreamSpan span(stream, {.name = "heads in", .kind = TraceKind::kRing});
    const Event arrival = exchange.ToHeads(inputs, in, scratch, transport, stream);
    beside(0);
    workspace->Await(arrival, stream);
  }
  const std::vector<TensorView> qkv = Arrived(exchange, inputs, 3, in, narrow, stream);
  RingForwardPass(
      ring, qkv[0], qkv[1], qkv[2], scale, exchange.FieldIn(result, results, 0),
      exchange.FieldIn(result, results, 1), *workspace, [&](int step) { beside(step + 1); },
      transport, stream);
  const StreamSpan span(stream, {.name = "heads out", .kind = TraceKind::kRing});
  const Event arrival = exchange.ToRows(result, scratch, transport, stream);
  beside(steps + 1);
  workspace->Await(arrival, stream);
  exchange.TakeRows(HeadExchange::Take::kCopy, result, scratch, results, stream);
  workspace->HoldUntilHere(stream);
  return absl::OkStatus();
}

absl::Status HeadParallelBackward(const RingLayout& layout, const HeadCounts& heads,
                                  const std::vector<AttentionSpan>& whole, DType wire,
                                  const TensorView& q, const TensorView& k, const TensorView& v,
                                  const TensorView& dout, const TensorView& lse,
                                  const TensorView& delta, float scale, const TensorView& dq,
                                  const TensorView& dk, const TensorView& dv, Transport& transport,
                                  Stream& stream, RingWorkspace* shared) {
  const HeadExchange exchange(layout);
  const RingLayout& ring = exchange.ring();
  const int members = static_cast<int>(ring.ranks.size());
  const HeadCounts part = PartOf(heads, layout.head_parallel);
  const ExchangedRow row(part);
  const std::vector<WorkspaceShape> shapes = RingBackwardShapes(ring, wire, k.dtype(), part);
  const size_t mine = shapes.size();
  absl::StatusOr<WorkspaceTensors> workspace =
      WorkspaceTensors::Allocate(stream.device().memory(),
                                 WithExchange(shapes, exchange, row.backward_in, row.backward_out,
                                              k.dtype(), 2 * part.q_width() + 2 * part.kv_width()),
                                 shared);
  if (!workspace.ok()) return workspace.status();
  const TensorView &in = (*workspace)[mine], &result = (*workspace)[mine + 1],
                   &scratch = (*workspace)[mine + 2], &narrow = (*workspace)[mine + 3];

  // In a ring of one no step has a message.
  const double hop = static_cast<double>(ring.rows() * 2 * part.kv_width());
  std::vector<double> weights(members + 2, 2 * hop);
  weights[1] = weights[members] = members == 1 ? 0 : hop;
  weights.front() = static_cast<double>(exchange.SentToHeads(row.backward_in));
  weights.back() = static_cast<double>(exchange.SentToRows(row.backward_out));
  const std::vector<std::vector<AttentionSpan>> portions = SpanPortions(whole, weights);
  const auto beside = [&](int portion) {
    if (portions[portion].empty()) return;
    AttentionBackward(q, k, v, dout, lse, delta, portions[portion], scale, dq, dk, dv, stream);
  };

  const std::vector<TensorView> inputs = {q, k, v, dout, lse, delta}, results = {dq, dk, dv};
  {
    const StreamSpan span(stream, {.name = "heads in", .kind = TraceKind::kRing});
    const Event arrival = exchange.ToHeads(inputs, in, scratch, transport, stream);
    beside(0);
    workspace->Await(arrival, stream);
  }
  if (!result.empty()) Zero(result, stream);
  const std::vector<TensorView> input = Arrived(exchange, inputs, 6, in, narrow, stream);
  const auto gradient = [&](size_t index) { return exchange.FieldIn(result, results, index); };
  RingBackwardPass(
      ring, input[0], input[1], input[2], input[3], input[4], input[5], scale, gradient(0),
      gradient(1), gradient(2), *workspace, [&](int step) { beside(step + 1); }, transport, stream);
  const StreamSpan span(stream, {.name = "heads out", .kind = TraceKind::kRing});
  const Event arrival = exchange.ToRows(result, scratch, transport, stream);
  beside(members + 1);
  workspace->Await(arrival, stream);
  exchange.TakeRows(HeadExchange::Take::kAdd, result, scratch, results, stream);
  workspace->HoldUntilHere(stream);
  return absl::OkStatus();
}

}  // namespace

absl::Status RingAttentionForward(const RingLayout& layout, const std::vector<AttentionSpan>& whole,
                                  const AttentionOptions& options, TensorView q, TensorView k,
                                  TensorView v, float scale, TensorView out, TensorView lse,
                                  Transport& transport, Stream& stream, RingWorkspace* shared) {
  const HeadCounts heads = CheckShapes(layout, q, k, v);
  if (WindowMatters(layout, options)) {
    return WindowAttentionForward(layout, whole, options, q, k, v, scale, out, lse, transport,
                                  stream, shared);
  }
  if (layout.head_parallel > 1) {
    return HeadParallelForward(layout, heads, whole, options.wire, q, k, v, scale, out, lse,
                               transport, stream, shared);
  }
  absl::StatusOr<WorkspaceTensors> workspace = WorkspaceTensors::Allocate(
      stream.device().memory(), RingForwardShapes(layout, options.wire, k.dtype(), heads), shared);
  if (!workspace.ok()) return workspace.status();
  const std::vector<std::vector<AttentionSpan>> portions =
      SpanPortions(whole, std::vector<double>(layout.ranks.size() - 1, 1.0));
  const auto beside = [&](int step) {
    if (!portions[step].empty()) AttentionForward(q, k, v, portions[step], scale, out, lse, stream);
  };
  // Spans of whole sequences count from the first row too, which is the ring's.
  const int64_t rows = layout.rows();
  RingForwardPass(layout, q.Slice(0, 0, rows), k.Slice(0, 0, rows), v.Slice(0, 0, rows), scale,
                  out.Slice(0, 0, rows), lse.Slice(0, 0, rows), *workspace, beside, transport,
                  stream);
  workspace->HoldUntilHere(stream);
  return absl::OkStatus();
}

absl::Status RingAttentionBackward(const RingLayout& layout,
                                   const std::vector<AttentionSpan>& whole,
                                   const AttentionOptions& options, TensorView q, TensorView k,
                                   TensorView v, TensorView dout, TensorView lse, TensorView delta,
                                   float scale, TensorView dq, TensorView dk, TensorView dv,
                                   Transport& transport, Stream& stream, RingWorkspace* shared) {
  const HeadCounts heads = CheckShapes(layout, q, k, v);
  CheckShapes(layout, dq, dk, dv);
  if (WindowMatters(layout, options)) {
    return WindowAttentionBackward(layout, whole, options, q, k, v, dout, lse, delta, scale, dq, dk,
                                   dv, transport, stream, shared);
  }
  if (layout.head_parallel > 1) {
    return HeadParallelBackward(layout, heads, whole, options.wire, q, k, v, dout, lse, delta,
                                scale, dq, dk, dv, transport, stream, shared);
  }
  absl::StatusOr<WorkspaceTensors> workspace = WorkspaceTensors::Allocate(
      stream.device().memory(), RingBackwardShapes(layout, options.wire, k.dtype(), heads), shared);
  if (!workspace.ok()) return workspace.status();
  // Keys and values travel in all steps but the last; gradients from the second on, and home after
  // the last.
  std::vector<double> weights(layout.ranks.size(), 2.0);
  weights.front() = weights.back() = 1;
  const std::vector<std::vector<AttentionSpan>> portions = SpanPortions(whole, weights);
  const auto beside = [&](int step) {
    if (portions[step].empty()) return;
    AttentionBackward(q, k, v, dout, lse, delta, portions[step], scale, dq, dk, dv, stream);
  };
  const auto rows = [&](const TensorView& x) { return x.Slice(0, 0, layout.rows()); };
  RingBackwardPass(layout, rows(q), rows(k), rows(v), rows(dout), rows(lse), rows(delta), scale,
                   rows(dq), rows(dk), rows(dv), *workspace, beside, transport, stream);
  workspace->HoldUntilHere(stream);
  return absl::OkStatus();
}

int64_t RingForwardBytes(const RingLayout& layout, const AttentionOptions& options,
                         const HeadCounts& heads) {
  if (WindowMatters(layout, options)) return WindowForwardBytes(layout, options, heads.kv_width());
  const HeadExchange exchange(layout);
  const HeadCounts part = PartOf(heads, layout.head_parallel);
  const ExchangedRow row(part);
  return RowsSent(exchange.ring()).keys_and_values * 2 * part.kv_width() * SizeOf(options.wire) +
         (exchange.SentToHeads(row.forward_in) + exchange.SentToRows(row.forward_out)) *
             SizeOf(DType::kF32);
}

int64_t RingBackwardBytes(const RingLayout& layout, const AttentionOptions& options,
                          const HeadCounts& heads) {
  if (WindowMatters(layout, options)) return WindowBackwardBytes(layout, options, heads.kv_width());
  const HeadExchange exchange(layout);
  const HeadCounts part = PartOf(heads, layout.head_parallel);
  const ExchangedRow row(part);
  const RingRows rows = RowsSent(exchange.ring());
  return rows.keys_and_values * 2 * part.kv_width() * SizeOf(options.wire) +
         (rows.gradients * 2 * part.kv_width() + exchange.SentToHeads(row.backward_in) +
          exchange.SentToRows(row.backward_out)) *
             SizeOf(DType::kF32);
}

}  // namespace longspan
