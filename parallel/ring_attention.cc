#include "parallel/ring_attention.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/attention.h"
#include "kernels/device/check.h"
#include "kernels/device/trace.h"
#include "kernels/elementwise.h"
#include "parallel/plan.h"

namespace longspan {

struct RingWorkspace::Memory {
  ~Memory() {
    // Where all went well every exchange is done by now. If the stream failed meanwhile, messages
    // may still arrive in this memory: it stays until they have.
    auto kept = std::make_shared<Buffer>(std::move(buffer));
    for (const Event& exchange : exchanges) {
      if (!exchange.Done()) exchange.OnDone([kept](const absl::Status&) {});
    }
  }

  Buffer buffer;
  std::vector<Event> exchanges;
};

RingWorkspace::RingWorkspace() = default;
RingWorkspace::~RingWorkspace() = default;
RingWorkspace::RingWorkspace(RingWorkspace&&) noexcept = default;
RingWorkspace& RingWorkspace::operator=(RingWorkspace&&) noexcept = default;

namespace {

// What one member holds of one sequence: `first` rows from `begin` on, then `second` rows.
struct SequenceRows {
  int64_t begin = 0;
  int64_t first = 0;
  int64_t second = 0;
  int64_t both() const { return first + second; }
};

// Rows of all sequences in a block of member `member`: whole, or shorn of the second parts.
std::vector<SequenceRows> BlockRows(const RingLayout& layout, int member, bool whole) {
  std::vector<SequenceRows> result;
  int64_t begin = 0;
  for (int64_t length : layout.lengths) {
    const std::array<TokenRange, 2> ranges =
        ZigzagRanges(length, static_cast<int>(layout.ranks.size()), member);
    result.push_back({begin, ranges[0].size(), whole ? ranges[1].size() : 0});
    begin += result.back().both();
  }
  return result;
}

int64_t TotalRows(const std::vector<SequenceRows>& rows) {
  return rows.empty() ? 0 : rows.back().begin + rows.back().both();
}

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
    LONGSPAN_CHECK(size_ >= 2, "a ring has at least two members");
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

  // Sends step `step`'s block of keys and values on, and receives the next step's. Blocks: (rows,
  // width), contiguous.
  Event PassBlock(int step, const TensorView& from, const TensorView& to, Transport& transport,
                  Stream& stream) const {
    const bool sends_second = NeedsSecond(previous(), owner(step));
    const bool shed = NeedsSecond(layout_.member, owner(step)) && !sends_second;
    std::vector<Message> sends, receives;
    for (const TokenRange& range : SentRanges(HeldRows(step), shed)) {
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

// Keys and values travel side by side in each row, so that a block, or the first parts of one
// sequence, is one message. Gradients likewise.
TensorView KeysOf(const TensorView& block, int64_t rows, const TensorView& k) {
  return block.Slice(0, 0, rows)
      .Slice(1, 0, k.dim(1) * k.dim(2))
      .Reshape({rows, k.dim(1), k.dim(2)});
}
TensorView ValuesOf(const TensorView& block, int64_t rows, const TensorView& k) {
  const int64_t width = k.dim(1) * k.dim(2);
  return block.Slice(0, 0, rows).Slice(1, width, 2 * width).Reshape({rows, k.dim(1), k.dim(2)});
}

using Memory = RingWorkspace::Memory;

// One call's tensors, in memory owned by the last work that the call queues on its stream.
struct Workspace {
  std::shared_ptr<Memory> memory;
  std::vector<TensorView> tensors;
};

struct WorkspaceShape {
  int64_t rows, columns;
};

absl::StatusOr<Workspace> AllocateWorkspace(MemoryTable& table,
                                            const std::vector<WorkspaceShape>& shapes,
                                            RingWorkspace* shared) {
  constexpr int64_t kAlignment = 64;
  auto bytes = [](const WorkspaceShape& shape) {
    const int64_t exact = shape.rows * shape.columns * SizeOf(DType::kF32);
    return (exact + kAlignment - 1) / kAlignment * kAlignment;
  };
  int64_t total = 0;
  for (const WorkspaceShape& shape : shapes) total += bytes(shape);
  Workspace workspace;
  if (shared != nullptr) workspace.memory = shared->memory();
  // Work queued before has let go of the memory when this call's runs: both are on one stream, and
  // every call ends with its exchanges awaited.
  if (workspace.memory == nullptr || workspace.memory->buffer.bytes() < total) {
    absl::StatusOr<Buffer> buffer = Buffer::Allocate(table, total, "ring", Placement::kDevice);
    if (!buffer.ok()) return buffer.status();
    workspace.memory = std::make_shared<Memory>();
    workspace.memory->buffer = *std::move(buffer);
    if (shared != nullptr) shared->memory() = workspace.memory;
  }
  std::erase_if(workspace.memory->exchanges, [](const Event& exchange) { return exchange.Done(); });
  int64_t offset = 0;
  for (const WorkspaceShape& shape : shapes) {
    workspace.tensors.push_back(
        workspace.memory->buffer.Tensor(DType::kF32, {shape.rows, shape.columns}, offset));
    offset += bytes(shape);
  }
  return workspace;
}

// The stream goes on when the exchange is done.
void Await(const Event& exchange, Workspace& workspace, Stream& stream) {
  stream.WaitFor(exchange);
  workspace.memory->exchanges.push_back(exchange);
}

void CheckShapes(const RingLayout& layout, const TensorView& q, const TensorView& k,
                 const TensorView& v) {
  const int64_t rows = layout.rows();
  LONGSPAN_CHECK(q.rank() == 3 && k.rank() == 3 && v.rank() == 3,
                 "ring attention: q, k, v are (rows, heads, head_dim)");
  LONGSPAN_CHECK(q.dim(0) >= rows && k.dim(0) >= rows && v.dim(0) >= rows,
                 "ring attention: the tensors hold fewer rows than the layout");
  LONGSPAN_CHECK(k.dim(1) == v.dim(1) && k.dim(2) == v.dim(2) && q.dim(2) == k.dim(2) &&
                     q.dim(1) % k.dim(1) == 0,
                 "ring attention: heads or head_dim do not match");
}

void PackKeysAndValues(const TensorView& k, const TensorView& v, const TensorView& block,
                       Stream& stream) {
  if (k.dim(0) == 0) return;
  Copy(k, KeysOf(block, k.dim(0), k), stream);
  Copy(v, ValuesOf(block, k.dim(0), k), stream);
}

// Zeros rows that may be strided; `zeros` is at least as large as one head of `x` and all zeros.
void ZeroRows(const TensorView& x, const TensorView& zeros, Stream& stream) {
  if (x.empty()) return;
  if (x.contiguous()) {
    Zero(x, stream);
    return;
  }
  for (int64_t head = 0; head < x.dim(1); ++head) {
    Copy(TensorView(zeros.raw(), DType::kF32, {x.dim(0), 1, x.dim(2)}), x.Slice(1, head, head + 1),
         stream);
  }
}

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

}  // namespace

int64_t RingLayout::rows_of(int index) const {
  return TotalRows(BlockRows(*this, index, /*whole=*/true));
}

int64_t RingLayout::rows() const { return rows_of(member); }

absl::Status RingAttentionForward(const RingLayout& layout, TensorView q, TensorView k,
                                  TensorView v, float scale, TensorView out, TensorView lse,
                                  Transport& transport, Stream& stream, RingWorkspace* shared) {
  CheckShapes(layout, q, k, v);
  const Ring ring(layout);
  const int64_t rows = layout.rows(), heads = q.dim(1), head_dim = q.dim(2);
  const int64_t block_width = 2 * k.dim(1) * k.dim(2);
  const int64_t block_rows = ring.LargestBlock();
  absl::StatusOr<Workspace> workspace = AllocateWorkspace(stream.device().memory(),
                                                          {{block_rows, block_width},
                                                           {block_rows, block_width},
                                                           {rows, heads * head_dim},
                                                           {rows, heads}},
                                                          shared);
  if (!workspace.ok()) return workspace.status();
  const TensorView* blocks = workspace->tensors.data();
  const TensorView part_out = workspace->tensors[2].Reshape({rows, heads, head_dim});
  const TensorView part_lse = workspace->tensors[3];
  q = q.Slice(0, 0, rows);
  k = k.Slice(0, 0, rows);
  v = v.Slice(0, 0, rows);
  out = out.Slice(0, 0, rows);
  lse = lse.Slice(0, 0, rows);

  PackKeysAndValues(k, v, blocks[0], stream);
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
      const std::vector<AttentionSpan> spans = ring.Spans(step);
      const int64_t held = TotalRows(ring.HeldRows(step));
      if (!spans.empty()) {
        AttentionForward(q, KeysOf(blocks[step % 2], held, k), ValuesOf(blocks[step % 2], held, k),
                         spans, scale, part_out, part_lse, stream);
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
    if (!last) Await(arrival, *workspace, stream);
  }
  stream.Launch("ring workspace", [held = workspace->memory] {});
  return absl::OkStatus();
}

absl::Status RingAttentionBackward(const RingLayout& layout, TensorView q, TensorView k,
                                   TensorView v, TensorView out, TensorView lse, TensorView dout,
                                   float scale, TensorView dq, TensorView dk, TensorView dv,
                                   Transport& transport, Stream& stream, RingWorkspace* shared) {
  CheckShapes(layout, q, k, v);
  CheckShapes(layout, dq, dk, dv);
  const Ring ring(layout);
  const int64_t rows = layout.rows(), heads = q.dim(1);
  const int64_t block_width = 2 * k.dim(1) * k.dim(2);
  const int64_t block_rows = ring.LargestBlock();
  const WorkspaceShape block{block_rows, block_width};
  absl::StatusOr<Workspace> workspace = AllocateWorkspace(
      stream.device().memory(), {block, block, block, block, block, {rows, heads}}, shared);
  if (!workspace.ok()) return workspace.status();
  const TensorView* blocks = workspace->tensors.data();
  const TensorView* gradients = blocks + 2;  // two: one is sent while the other is received
  const TensorView part = blocks[4];         // this member's share of a gradient
  const TensorView delta = blocks[5];
  q = q.Slice(0, 0, rows);
  k = k.Slice(0, 0, rows);
  v = v.Slice(0, 0, rows);
  out = out.Slice(0, 0, rows);
  lse = lse.Slice(0, 0, rows);
  dout = dout.Slice(0, 0, rows);
  dq = dq.Slice(0, 0, rows);
  dk = dk.Slice(0, 0, rows);
  dv = dv.Slice(0, 0, rows);
  auto backward = [&](const TensorView& keys, const TensorView& values,
                      const std::vector<AttentionSpan>& spans, const TensorView& key_gradient,
                      const TensorView& value_gradient) {
    if (spans.empty()) return;
    AttentionBackward(q, keys, values, dout, lse, delta, spans, scale, dq, key_gradient,
                      value_gradient, stream);
  };

  PackKeysAndValues(k, v, blocks[0], stream);
  if (rows > 0) AttentionDelta(out, dout, delta, stream);
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
      Zero(part, stream);
      for (const TensorView& gradient : {dq, dk, dv}) ZeroRows(gradient, part, stream);
      backward(k, v, ring.OwnSpans(), dk, dv);
    } else {
      const std::vector<SequenceRows> held = ring.HeldRows(step);
      const int64_t held_rows = TotalRows(held);
      const TensorView& keys = blocks[step % 2];
      if (held_rows > 0) Zero(part.Slice(0, 0, held_rows), stream);
      backward(KeysOf(keys, held_rows, k), ValuesOf(keys, held_rows, k), ring.Spans(step),
               KeysOf(part, held_rows, k), ValuesOf(part, held_rows, k));
      const std::vector<SequenceRows> travelling = ring.GradientRows(ring.owner(step));
      const TensorView& gradient = gradients[step % 2];
      if (step == 1) {
        // Nobody has worked on this block before.
        Zero(gradient, stream);
      } else {
        Await(gradient_arrival, *workspace, stream);
      }
      AddBlock(part, held, gradient, travelling, stream);
      gradient_arrival =
          ring.PassGradient(step, gradient, gradients[(step + 1) % 2], transport, stream);
    }
    if (!last) Await(arrival, *workspace, stream);
  }
  Await(gradient_arrival, *workspace, stream);
  const TensorView& home = gradients[ring.size() % 2];
  const std::vector<SequenceRows> own = ring.OwnRows();
  const std::vector<SequenceRows> arrived = ring.GradientRows(layout.member);
  const int64_t arrived_rows = TotalRows(arrived);
  AddBlock(KeysOf(home, arrived_rows, k), arrived, dk, own, stream);
  AddBlock(ValuesOf(home, arrived_rows, k), arrived, dv, own, stream);
  stream.Launch("ring workspace", [held = workspace->memory] {});
  return absl::OkStatus();
}

int64_t RingForwardBytes(const RingLayout& layout, int64_t kv_width) {
  const int members = static_cast<int>(layout.ranks.size());
  int64_t rows = 0;
  for (int owner = 0; owner < members; ++owner) {
    for (int holder = 0; holder < members; ++holder) {
      if (holder == owner) continue;
      rows += TotalRows(BlockRows(layout, owner, Ring::NeedsSecond(holder, owner)));
    }
  }
  return rows * 2 * kv_width * SizeOf(DType::kF32);
}

int64_t RingBackwardBytes(const RingLayout& layout, int64_t kv_width) {
  const int members = static_cast<int>(layout.ranks.size());
  int64_t rows = 0;
  for (int owner = 0; owner < members; ++owner) {
    // One hop less than the ring has: a gradient's first holder is the owner's neighbour.
    rows += (members - 1) * TotalRows(BlockRows(layout, owner, Ring::GradientHasSecond(owner)));
  }
  return RingForwardBytes(layout, kv_width) + rows * 2 * kv_width * SizeOf(DType::kF32);
}

}  // namespace longspan
