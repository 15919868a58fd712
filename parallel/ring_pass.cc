#include "parallel/ring_pass.h"

#include <algorithm>
#include <utility>

#include "kernels/device/check.h"
#include "kernels/device/trace.h"
#include "kernels/elementwise.h"
#include "parallel/key_value_rows.h"
#include "parallel/plan.h"
#include "parallel/span_portions.h"

namespace longspan {

namespace {

// The row ranges in which a block travels from a holder to the next, which may want the first parts
// only. Both sides cut alike: one message for all, or one a sequence where second parts are shed.
std::vector<TokenRange> SentRanges(const std::vector<SequenceRows>& held, bool shed) {
  if (!shed) return {{0, TotalRows(held)}};
  std::vector<TokenRange> ranges;
  for (const SequenceRows& rows : held) ranges.push_back({rows.begin, rows.begin + rows.first});
  return ranges;
}

// One member's view of the ring. Step t works on the block of member owner(t).
class Ring {
 public:
  explicit Ring(const RingLayout& layout)
      : layout_(layout), size_(static_cast<int>(layout.ranks.size())) {
    LONGSPAN_CHECK(layout.member >= 0 && layout.member < size_, "the ring has no such member");
  }

  int size() const { return size_; }
  int owner(int step) const { return (layout_.member + step) % size_; }
  int previous() const { return (layout_.member + size_ - 1) % size_; }
  int next() const { return (layout_.member + 1) % size_; }

  // A holder needs second parts only while its queries come before them.
  static bool NeedsSecond(int holder, int owner) { return owner >= holder; }
  // Second parts of member 0 are seen by no other: no gradient comes back for them.
  static bool GradientHasSecond(int owner) { return owner != 0; }

  std::vector<SequenceRows> OwnRows() const { return BlockRows(layout_, layout_.member, true); }
  // Rows of the block worked on at `step`, as this member holds it.
  std::vector<SequenceRows> HeldRows(int step) const {
    return BlockRows(layout_, owner(step), NeedsSecond(layout_.member, owner(step)));
  }
  std::vector<SequenceRows> GradientRows(int owner) const {
    return BlockRows(layout_, owner, GradientHasSecond(owner));
  }

  int64_t LargestBlock() const {
    int64_t largest = 0;
    for (int member = 0; member < size_; ++member) {
      largest = std::max(largest, layout_.rows_of(member));
    }
    return largest;
  }

  // Rows of step `step`'s block of keys and values that travel on.
  std::vector<TokenRange> PassedRows(int step) const {
    const bool sends_second = NeedsSecond(previous(), owner(step));
    const bool shed = NeedsSecond(layout_.member, owner(step)) && !sends_second;
    return SentRanges(HeldRows(step), shed);
  }

  // Sends step `step`'s block of keys and values on, and receives the next step's. Blocks: (rows,
  // width), contiguous.
  Event PassBlock(int step, const TensorView& from, const TensorView& to, Transport& transport,
                  Stream& stream) const {
    std::vector<Message> sends, receives;
    for (const TokenRange& range : PassedRows(step)) {
      sends.push_back({layout_.ranks[previous()], from.Slice(0, range.begin, range.end)});
    }
    // The next member holds the block of the next step now.
    const std::vector<SequenceRows> received = HeldRows(step + 1);
    const bool was_shed =
        NeedsSecond(next(), owner(step + 1)) && !NeedsSecond(layout_.member, owner(step + 1));
    for (const TokenRange& range : SentRanges(received, was_shed)) {
      receives.push_back({layout_.ranks[next()], to.Slice(0, range.begin, range.end)});
    }
    return Exchange(std::move(sends), std::move(receives), transport, stream);
  }

  // Sends the gradient of step `step`'s block on, and receives that of the next step's block; after
  // the last step that is this member's own.
  Event PassGradient(int step, const TensorView& from, const TensorView& to, Transport& transport,
                     Stream& stream) const {
    const int64_t sent = TotalRows(GradientRows(owner(step)));
    const int64_t received = TotalRows(GradientRows(owner(step + 1)));
    return Exchange({{layout_.ranks[previous()], from.Slice(0, 0, sent)}},
                    {{layout_.ranks[next()], to.Slice(0, 0, received)}}, transport, stream);
  }

  // The spans of step `step` >= 1: all queries see the first parts of members before this one;
  // second queries see all of members after it. Spans without queries or keys are left out.
  std::vector<AttentionSpan> Spans(int step) const {
    const std::vector<SequenceRows> own = OwnRows();
    const std::vector<SequenceRows> held = HeldRows(step);
    const bool earlier = owner(step) < layout_.member;
    std::vector<AttentionSpan> spans;
    for (size_t i = 0; i < own.size(); ++i) {
      AttentionSpan span;
      span.query_begin = own[i].begin + (earlier ? 0 : own[i].first);
      span.query_count = earlier ? own[i].both() : own[i].second;
      span.key_begin = held[i].begin;
      span.key_count = held[i].both();
      span.causal = false;
      if (span.query_count > 0 && span.key_count > 0) spans.push_back(span);
    }
    return spans;
  }

  // This member's own part: plain causal attention on what it holds of each sequence.
  std::vector<AttentionSpan> OwnSpans() const {
    std::vector<AttentionSpan> spans;
    for (const SequenceRows& rows : OwnRows()) {
      if (rows.both() == 0) continue;
      spans.push_back({rows.begin, rows.both(), rows.begin, rows.both(), /*causal=*/true});
    }
    return spans;
  }

 private:
  static Event Exchange(std::vector<Message> sends, std::vector<Message> receives,
                        Transport& transport, Stream& stream) {
    auto without_empty = [](std::vector<Message>& messages) {
      std::erase_if(messages, [](const Message& message) { return message.tensor.empty(); });
    };
    without_empty(sends);
    without_empty(receives);
    if (sends.empty() && receives.empty()) return Event();
    return transport.Exchange(std::move(sends), std::move(receives), stream);
  }

  const RingLayout& layout_;
  const int size_;
};

// sum += part, where `part` may lack the second parts that `sum` has.
void AddBlock(const TensorView& part, const std::vector<SequenceRows>& part_rows,
              const TensorView& sum, const std::vector<SequenceRows>& sum_rows, Stream& stream) {
  for (size_t i = 0; i < part_rows.size();) {
    // As many sequences at a time as lie alike in both.
    const int64_t from = part_rows[i].begin, to = sum_rows[i].begin;
    int64_t count = 0;
    for (; i < part_rows.size() && part_rows[i].begin - from == count &&
           sum_rows[i].begin - to == count;
         ++i) {
      count += part_rows[i].both();
    }
    if (count > 0) Add(part.Slice(0, from, from + count), sum.Slice(0, to, to + count), stream);
  }
}

// The block that a step works on, of the dtype that attention takes: what travelled, or a copy in
// `working`.
TensorView Unpacked(const TensorView& block, int64_t rows, const TensorView& working,
                    Stream& stream) {
  if (block.dtype() == working.dtype()) return block;
  if (rows > 0) Convert(block.Slice(0, 0, rows), working.Slice(0, 0, rows), stream);
  return working;
}

// Blocks of the ring; a ring of one has none.
int64_t TravellingRows(const Ring& ring) { return ring.size() == 1 ? 0 : ring.LargestBlock(); }

}  // namespace

std::vector<WorkspaceShape> RingForwardShapes(const RingLayout& layout, DType wire, DType compute,
                                              const HeadCounts& heads) {
  const Ring ring(layout);
  const int64_t rows = layout.rows(), block_rows = TravellingRows(ring);
  const WorkspaceShape block{block_rows, 2 * heads.kv_width(), wire};
  const WorkspaceShape working{wire == compute ? 0 : block_rows, 2 * heads.kv_width(), compute};
  const int64_t part_rows = ring.size() == 1 ? 0 : rows;
  return {block, block, {part_rows, heads.q_width()}, {part_rows, heads.heads}, working};
}

void RingForwardPass(const RingLayout& layout, const TensorView& q, const TensorView& k,
                     const TensorView& v, float scale, const TensorView& out, const TensorView& lse,
                     WorkspaceTensors& workspace, const BesideStep& beside, Transport& transport,
                     Stream& stream) {
  const Ring ring(layout);
  const TensorView blocks[2] = {workspace[0], workspace[1]};
  if (ring.size() > 1) PackKeysAndValues(k, v, blocks[0], stream);
  for (int step = 0; step < ring.size(); ++step) {
    const StreamSpan span(stream,
                          {.name = "ring step", .kind = TraceKind::kRing, .ring_step = step});
    // The exchange is posted by the stream itself, ahead of this step's arithmetic: it starts when
    // the previous step has let go of the block that is received into, and runs beside this one.
    const bool last = step + 1 == ring.size();
    Event arrival;
    if (!last) {
      arrival = ring.PassBlock(step, blocks[step % 2], blocks[(step + 1) % 2], transport, stream);
    }
    if (step == 0) {
      const std::vector<AttentionSpan> spans = ring.OwnSpans();
      if (!spans.empty()) AttentionForward(q, k, v, spans, scale, out, lse, stream);
    } else {
      const TensorView part_out = workspace[2].Reshape({layout.rows(), q.dim(1), q.dim(2)});
      const TensorView& part_lse = workspace[3];
      const std::vector<AttentionSpan> spans = ring.Spans(step);
      const int64_t held = TotalRows(ring.HeldRows(step));
      if (!spans.empty()) {
        const TensorView keys = Unpacked(blocks[step % 2], held, workspace[4], stream);
        AttentionForward(q, KeysOf(keys, held, k), ValuesOf(keys, held, k), spans, scale, part_out,
                         part_lse, stream);
      }
      for (size_t i = 0; i < spans.size();) {
        // Neighbouring spans are merged in one call; rows between others hold nothing of this step.
        const int64_t begin = spans[i].query_begin;
        int64_t end = begin;
        for (; i < spans.size() && spans[i].query_begin == end; ++i) end += spans[i].query_count;
        MergeAttention(part_out.Slice(0, begin, end), part_lse.Slice(0, begin, end),
                       out.Slice(0, begin, end), lse.Slice(0, begin, end), stream);
      }
    }
    if (!last) {
      beside(step);
      workspace.Await(arrival, stream);
    }
  }
}

std::vector<WorkspaceShape> RingBackwardShapes(const RingLayout& layout, DType wire, DType compute,
                                               const HeadCounts& heads) {
  const Ring ring(layout);
  const int64_t block_rows = TravellingRows(ring);
  const WorkspaceShape block{block_rows, 2 * heads.kv_width(), wire};
  const WorkspaceShape gradient{block_rows, 2 * heads.kv_width()};
  const WorkspaceShape working{wire == compute ? 0 : block_rows, 2 * heads.kv_width(), compute};
  return {block, block, gradient, gradient, gradient, working};
}

void RingBackwardPass(const RingLayout& layout, const TensorView& q, const TensorView& k,
                      const TensorView& v, const TensorView& dout, const TensorView& lse,
                      const TensorView& delta, float scale, const TensorView& dq,
                      const TensorView& dk, const TensorView& dv, WorkspaceTensors& workspace,
                      const BesideStep& beside, Transport& transport, Stream& stream) {
  const Ring ring(layout);
  const TensorView blocks[2] = {workspace[0], workspace[1]};
  const TensorView gradients[2] = {workspace[2], workspace[3]};  // one is sent, one received
  const TensorView part = workspace[4];  // this member's share of a gradient
  auto backward = [&](const TensorView& keys, const TensorView& values,
                      const std::vector<AttentionSpan>& spans, const TensorView& key_gradient,
                      const TensorView& value_gradient) {
    if (spans.empty()) return;
    AttentionBackward(q, keys, values, dout, lse, delta, spans, scale, dq, key_gradient,
                      value_gradient, stream);
  };
  if (ring.size() > 1) PackKeysAndValues(k, v, blocks[0], stream);
  // A member's own block needs nobody. A part of it fills the first step, which has keys and values
  // to hide; the rest waits for the end, when its own gradient travels home.
  std::vector<double> own_weights = {static_cast<double>(SizeOf(blocks[0].dtype()))};
  if (ring.size() > 1) own_weights.push_back(static_cast<double>(SizeOf(part.dtype())));
  const std::vector<std::vector<AttentionSpan>> own = SpanPortions(ring.OwnSpans(), own_weights);
  Event gradient_arrival;
  for (int step = 0; step < ring.size(); ++step) {
    const StreamSpan span(stream,
                          {.name = "ring step", .kind = TraceKind::kRing, .ring_step = step});
    const bool last = step + 1 == ring.size();
    Event arrival;
    if (!last) {
      arrival = ring.PassBlock(step, blocks[step % 2], blocks[(step + 1) % 2], transport, stream);
    }
    if (step == 0) {
      backward(k, v, own[0], dk, dv);
    } else {
      const std::vector<SequenceRows> held = ring.HeldRows(step);
      const int64_t held_rows = TotalRows(held);
      if (held_rows > 0) Zero(part.Slice(0, 0, held_rows), stream);
      const TensorView keys = Unpacked(blocks[step % 2], held_rows, workspace[5], stream);
      backward(KeysOf(keys, held_rows, k), ValuesOf(keys, held_rows, k), ring.Spans(step),
               KeysOf(part, held_rows, k), ValuesOf(part, held_rows, k));
      const std::vector<SequenceRows> passed = ring.GradientRows(ring.owner(step));
      const TensorView& gradient = gradients[step % 2];
      if (step == 1) {
        // Nobody has worked on this block before.
        Zero(gradient, stream);
      } else {
        workspace.Await(gradient_arrival, stream);
      }
      AddBlock(part, held, gradient, passed, stream);
      gradient_arrival =
          ring.PassGradient(step, gradient, gradients[(step + 1) % 2], transport, stream);
    }
    beside(step);
    if (!last) {
      workspace.Await(arrival, stream);
    } else if (ring.size() > 1) {
      backward(k, v, own[1], dk, dv);
    }
  }
  if (ring.size() == 1) return;
  workspace.Await(gradient_arrival, stream);
  const TensorView& home = gradients[ring.size() % 2];
  const std::vector<SequenceRows> own_rows = ring.OwnRows();
  const std::vector<SequenceRows> arrived = ring.GradientRows(layout.member);
  const int64_t arrived_rows = TotalRows(arrived);
  AddBlock(KeysOf(home, arrived_rows, k), arrived, dk, own_rows, stream);
  AddBlock(ValuesOf(home, arrived_rows, k), arrived, dv, own_rows, stream);
}

RingRows RowsSent(const RingLayout& layout) {
  const Ring ring(layout);
  RingRows sent;
  for (int step = 0; step + 1 < ring.size(); ++step) {
    for (const TokenRange& range : ring.PassedRows(step)) sent.keys_and_values += range.size();
  }
  // A gradient's first holder is its owner's neighbour.
  for (int step = 1; step < ring.size(); ++step) {
    sent.gradients += TotalRows(ring.GradientRows(ring.owner(step)));
  }
  return sent;
}

}  // namespace longspan
