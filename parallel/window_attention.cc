#include "parallel/window_attention.h"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/device/trace.h"
#include "kernels/elementwise.h"
#include "parallel/key_value_rows.h"
#include "parallel/plan.h"
#include "parallel/span_portions.h"

namespace longspan {
namespace {

TokenRange Intersection(const TokenRange& a, const TokenRange& b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

// Positions of one sequence that a member's queries see before its own parts: its halo. Ascending,
// disjoint; its own first part may be among them.
struct Halo {
  std::array<TokenRange, 2> parts;          // the member's queries
  std::array<TokenRange, 2> before;         // what each part sees of what precedes it
  absl::InlinedVector<TokenRange, 2> kept;  // the same, joined where they meet
};

Halo HaloOf(int64_t length, int members, int member, int64_t window) {
  Halo halo;
  halo.parts = ZigzagRanges(length, members, member);
  for (int i = 0; i < 2; ++i) {
    const TokenRange& part = halo.parts[i];
    if (part.size() == 0) continue;
    halo.before[i] = {std::max<int64_t>(0, part.begin - (window - 1)), part.begin};
    if (halo.before[i].size() == 0) continue;
    if (!halo.kept.empty() && halo.before[i].begin <= halo.kept.back().end) {
      halo.kept.back().end = halo.before[i].end;
    } else {
      halo.kept.push_back(halo.before[i]);
    }
  }
  return halo;
}

// Positions [begin, end) of one sequence that lie in one part of one member.
struct Segment {
  int64_t sequence = 0;
  int owner = 0;  // member
  TokenRange positions;
  int64_t row = 0;  // of the first of them, in the halo rows of the member that needs them
};

// The segments of a member's halo, in the order of its rows.
std::vector<Segment> SegmentsOf(const RingLayout& layout, int member, int64_t window) {
  const int members = static_cast<int>(layout.ranks.size());
  std::vector<Segment> segments;
  int64_t row = 0;
  for (size_t s = 0; s < layout.lengths.size(); ++s) {
    const int64_t length = layout.lengths[s];
    for (const TokenRange& range : HaloOf(length, members, member, window).kept) {
      // Part p begins at floor(p * length / (2 * members)).
      const int64_t first = std::max<int64_t>(0, range.begin * 2 * members / length - 1);
      for (int part = static_cast<int>(first); part < 2 * members; ++part) {
        const int owner = part < members ? part : 2 * members - 1 - part;
        const TokenRange held = ZigzagRanges(length, members, owner)[part < members ? 0 : 1];
        if (held.begin >= range.end) break;
        const TokenRange positions = Intersection(range, held);
        if (positions.size() == 0) continue;
        segments.push_back({static_cast<int64_t>(s), owner, positions, row});
        row += positions.size();
      }
    }
  }
  return segments;
}

// One member's view.
class Window {
 public:
  Window(const RingLayout& layout, int64_t window)
      : layout_(layout),
        window_(window),
        members_(static_cast<int>(layout.ranks.size())),
        halo_(SegmentsOf(layout, layout.member, window)),
        own_(BlockRows(layout, layout.member, /*whole=*/true)) {
    for (const Segment& segment : halo_) halo_rows_ += segment.positions.size();
    // By member, so that what goes to one of them leaves in the order in which it expects it.
    for (int member = 0; member < members_; ++member) {
      if (member == layout.member) continue;
      for (Segment segment : SegmentsOf(layout, member, window)) {
        if (segment.owner != layout.member) continue;
        segment.row = sent_rows_;
        sent_rows_ += segment.positions.size();
        sent_.push_back(segment);
        receivers_.push_back(member);
      }
    }
  }

  int64_t halo_rows() const { return halo_rows_; }
  int64_t sent_rows() const { return sent_rows_; }
  int64_t received_rows() const {
    int64_t rows = 0;
    for (const Segment& segment : halo_) {
      if (segment.owner != layout_.member) rows += segment.positions.size();
    }
    return rows;
  }
  const std::vector<Segment>& halo() const { return halo_; }
  const std::vector<Segment>& sent() const { return sent_; }
  bool own(const Segment& segment) const { return segment.owner == layout_.member; }

  // Rows of this member's tensors that hold a segment it owns.
  TokenRange OwnRows(const Segment& segment) const {
    const std::array<TokenRange, 2> parts =
        ZigzagRanges(layout_.lengths[segment.sequence], members_, layout_.member);
    const SequenceRows& rows = own_[segment.sequence];
    const bool in_first = segment.positions.begin < parts[0].end;
    const int64_t begin = in_first
                              ? rows.begin + segment.positions.begin - parts[0].begin
                              : rows.begin + rows.first + segment.positions.begin - parts[1].begin;
    return {begin, begin + segment.positions.size()};
  }

  // Each part on its own keys.
  std::vector<AttentionSpan> OwnSpans() const {
    std::vector<AttentionSpan> spans;
    for (const SequenceRows& rows : own_) {
      for (const TokenRange& part :
           {TokenRange{rows.begin, rows.begin + rows.first},
            TokenRange{rows.begin + rows.first, rows.begin + rows.both()}}) {
        if (part.size() == 0) continue;
        spans.push_back({part.begin, part.size(), part.begin, part.size(), /*causal=*/true, window_,
                         /*distance=*/0});
      }
    }
    return spans;
  }

  // First or second parts (`part`) on the halo rows before them. Queries that see none are left
  // out.
  std::vector<AttentionSpan> HaloSpans(int part) const {
    std::vector<AttentionSpan> spans;
    int64_t row = 0;  // of the first kept range of the sequence
    for (size_t s = 0; s < layout_.lengths.size(); ++s) {
      const Halo halo = HaloOf(layout_.lengths[s], members_, layout_.member, window_);
      const TokenRange& before = halo.before[part];
      int64_t begin = row;
      for (const TokenRange& kept : halo.kept) {
        if (before.size() > 0 && before.begin >= kept.begin && before.end <= kept.end) {
          const int64_t queries = std::min(halo.parts[part].size(), window_ - 1);
          spans.push_back({own_[s].begin + (part == 0 ? 0 : own_[s].first), queries,
                           begin + before.begin - kept.begin, before.size(), /*causal=*/false,
                           window_, /*distance=*/before.size()});
        }
        begin += kept.size();
      }
      row = begin;
    }
    return spans;
  }

  // Segments that this member needs arrive in `halo`, those that others need leave from `sent`:
  // (rows, width). The other way round for gradients: `home`.
  Event Exchange(const TensorView& sent, const TensorView& halo, bool home, Transport& transport,
                 Stream& stream) const {
    std::vector<Message> needed, given;
    const auto rows = [](const TensorView& x, const Segment& segment) {
      return x.Slice(0, segment.row, segment.row + segment.positions.size());
    };
    for (const Segment& segment : halo_) {
      if (!own(segment)) needed.push_back({layout_.ranks[segment.owner], rows(halo, segment)});
    }
    for (size_t i = 0; i < sent_.size(); ++i) {
      given.push_back({layout_.ranks[receivers_[i]], rows(sent, sent_[i])});
    }
    if (needed.empty() && given.empty()) return Event();
    if (home) std::swap(needed, given);
    return transport.Exchange(std::move(given), std::move(needed), stream);
  }

 private:
  const RingLayout& layout_;
  const int64_t window_;
  const int members_;
  const std::vector<Segment> halo_;
  const std::vector<SequenceRows> own_;
  std::vector<Segment> sent_;
  std::vector<int> receivers_;  // member that each of them goes to
  int64_t halo_rows_ = 0, sent_rows_ = 0;
};

// Keys and values of the halo, of k's dtype: own ones copied, the others as they arrive.
class HaloExchange {
 public:
  // Tensors of the workspace that it needs, from `first` on.
  static std::vector<WorkspaceShape> Shapes(const Window& window, const AttentionOptions& options,
                                            DType compute, int64_t width) {
    const bool converts = options.wire != compute;
    return {{window.sent_rows(), width, options.wire},
            {window.halo_rows(), width, compute},
            {converts ? window.halo_rows() : 0, width, options.wire}};
  }

  HaloExchange(const Window& window, WorkspaceTensors& workspace, const TensorView& k,
               const TensorView& v, Transport& transport, Stream& stream)
      : window_(window), workspace_(workspace), stream_(stream), halo_(workspace[1]) {
    for (const Segment& segment : window.sent()) {
      const TokenRange rows = window.OwnRows(segment);
      PackKeysAndValues(k.Slice(0, rows.begin, rows.end), v.Slice(0, rows.begin, rows.end),
                        RowsOf(workspace[0], segment), stream);
    }
    arriving_ = converts() ? workspace[2] : halo_;
    arrival_ = window.Exchange(workspace[0], arriving_, /*home=*/false, transport, stream);
    for (const Segment& segment : window.halo()) {
      if (!window.own(segment)) continue;
      const TokenRange rows = window.OwnRows(segment);
      PackKeysAndValues(k.Slice(0, rows.begin, rows.end), v.Slice(0, rows.begin, rows.end),
                        RowsOf(halo_, segment), stream);
    }
  }

  // The rows of the halo, once they are all there.
  const TensorView& Arrived() {
    workspace_.Await(arrival_, stream_);
    if (converts()) {
      for (const Segment& segment : window_.halo()) {
        if (window_.own(segment)) continue;
        Convert(RowsOf(arriving_, segment), RowsOf(halo_, segment), stream_);
      }
    }
    return halo_;
  }

  static TensorView RowsOf(const TensorView& x, const Segment& segment) {
    return x.Slice(0, segment.row, segment.row + segment.positions.size());
  }

 private:
  bool converts() const { return workspace_[0].dtype() != halo_.dtype(); }

  const Window& window_;
  WorkspaceTensors& workspace_;
  Stream& stream_;
  TensorView halo_, arriving_;
  Event arrival_;
};

}  // namespace

absl::Status WindowAttentionForward(const RingLayout& layout,
                                    const std::vector<AttentionSpan>& whole,
                                    const AttentionOptions& options, TensorView q, TensorView k,
                                    TensorView v, float scale, TensorView out, TensorView lse,
                                    Transport& transport, Stream& stream, RingWorkspace* shared) {
  const Window window(layout, options.window);
  const int64_t rows = layout.rows(), heads = q.dim(1), head_dim = q.dim(2);
  const int64_t width = 2 * k.dim(1) * k.dim(2);
  std::vector<WorkspaceShape> shapes = HaloExchange::Shapes(window, options, k.dtype(), width);
  shapes.push_back({rows, heads * head_dim});
  shapes.push_back({rows, heads});
  absl::StatusOr<WorkspaceTensors> workspace =
      WorkspaceTensors::Allocate(stream.device().memory(), shapes, shared);
  if (!workspace.ok()) return workspace.status();
  const TensorView part_out = (*workspace)[3].Reshape({rows, heads, head_dim});
  const TensorView part_lse = (*workspace)[4];
  const TensorView ring_q = q.Slice(0, 0, rows);

  const StreamSpan span(stream, {.name = "window", .kind = TraceKind::kRing});
  HaloExchange exchange(window, *workspace, k, v, transport, stream);
  std::vector<AttentionSpan> at_once = window.OwnSpans();
  at_once.insert(at_once.end(), whole.begin(), whole.end());
  if (!at_once.empty()) AttentionForward(q, k, v, at_once, scale, out, lse, stream);
  const TensorView& halo = exchange.Arrived();
  for (int part = 0; part < 2; ++part) {
    const std::vector<AttentionSpan> spans = window.HaloSpans(part);
    if (spans.empty()) continue;
    AttentionForward(ring_q, KeysOf(halo, window.halo_rows(), k),
                     ValuesOf(halo, window.halo_rows(), k), spans, scale, part_out, part_lse,
                     stream);
    for (const AttentionSpan& each : spans) {
      const int64_t begin = each.query_begin, end = begin + each.query_count;
      MergeAttention(part_out.Slice(0, begin, end), part_lse.Slice(0, begin, end),
                     out.Slice(0, begin, end), lse.Slice(0, begin, end), stream);
    }
  }
  workspace->HoldUntilHere(stream);
  return absl::OkStatus();
}

absl::Status WindowAttentionBackward(const RingLayout& layout,
                                     const std::vector<AttentionSpan>& whole,
                                     const AttentionOptions& options, TensorView q, TensorView k,
                                     TensorView v, TensorView dout, TensorView lse,
                                     TensorView delta, float scale, TensorView dq, TensorView dk,
                                     TensorView dv, Transport& transport, Stream& stream,
                                     RingWorkspace* shared) {
  const Window window(layout, options.window);
  const int64_t width = 2 * k.dim(1) * k.dim(2);
  std::vector<WorkspaceShape> shapes = HaloExchange::Shapes(window, options, k.dtype(), width);
  shapes.push_back({window.halo_rows(), width});
  shapes.push_back({window.sent_rows(), width});
  absl::StatusOr<WorkspaceTensors> workspace =
      WorkspaceTensors::Allocate(stream.device().memory(), shapes, shared);
  if (!workspace.ok()) return workspace.status();
  const TensorView gradient = (*workspace)[3];  // of the halo
  const TensorView returned = (*workspace)[4];  // of the rows that were sent
  const auto backward = [&](const TensorView& keys, const TensorView& values,
                            const std::vector<AttentionSpan>& spans, const TensorView& key_gradient,
                            const TensorView& value_gradient) {
    if (spans.empty()) return;
    AttentionBackward(q, keys, values, dout, lse, delta, spans, scale, dq, key_gradient,
                      value_gradient, stream);
  };

  const StreamSpan span(stream, {.name = "window", .kind = TraceKind::kRing});
  // Whole sequences hide both exchanges.
  const std::vector<std::vector<AttentionSpan>> beside = SpanPortions(whole, {1.0, 1.0});
  HaloExchange exchange(window, *workspace, k, v, transport, stream);
  backward(k, v, window.OwnSpans(), dk, dv);
  backward(k, v, beside[0], dk, dv);
  const TensorView& halo = exchange.Arrived();
  const int64_t rows = window.halo_rows();
  if (rows > 0) Zero(gradient, stream);
  for (int part = 0; part < 2; ++part) {
    backward(KeysOf(halo, rows, k), ValuesOf(halo, rows, k), window.HaloSpans(part),
             KeysOf(gradient, rows, k), ValuesOf(gradient, rows, k));
  }
  const Event home = window.Exchange(returned, gradient, /*home=*/true, transport, stream);
  const auto add = [&](const TensorView& from, const Segment& segment) {
    const TokenRange own = window.OwnRows(segment);
    Add(KeysOf(from, own.size(), k), dk.Slice(0, own.begin, own.end), stream);
    Add(ValuesOf(from, own.size(), k), dv.Slice(0, own.begin, own.end), stream);
  };
  for (const Segment& segment : window.halo()) {
    if (window.own(segment)) add(HaloExchange::RowsOf(gradient, segment), segment);
  }
  backward(k, v, beside[1], dk, dv);
  workspace->Await(home, stream);
  for (const Segment& segment : window.sent()) {
    add(HaloExchange::RowsOf(returned, segment), segment);
  }
  workspace->HoldUntilHere(stream);
  return absl::OkStatus();
}

int64_t WindowForwardBytes(const RingLayout& layout, const AttentionOptions& options,
                           int64_t kv_width) {
  return Window(layout, options.window).sent_rows() * 2 * kv_width * SizeOf(options.wire);
}

int64_t WindowBackwardBytes(const RingLayout& layout, const AttentionOptions& options,
                            int64_t kv_width) {
  return WindowForwardBytes(layout, options, kv_width) +
         Window(layout, options.window).received_rows() * 2 * kv_width * SizeOf(DType::kF32);
}

}  // namespace longspan
