#include "gathered_attention.h"

#include <array>
#include <utility>

#include "kernels/elementwise.h"
#include "parallel/plan.h"

namespace longspan {
namespace {

// Whole sequences, one after the other, by position: where each member's rows belong.
struct Piece {
  int member = 0;
  int64_t own_row = 0;    // in that member's tensors
  int64_t whole_row = 0;  // in the gathered ones
  int64_t rows = 0;
};

std::vector<Piece> PiecesOf(const RingLayout& layout) {
  const int members = static_cast<int>(layout.ranks.size());
  std::vector<int64_t> own(members, 0);
  std::vector<Piece> pieces;
  int64_t begin = 0;
  for (const int64_t length : layout.lengths) {
    for (int member = 0; member < members; ++member) {
      for (const TokenRange& range : ZigzagRanges(length, members, member)) {
        if (range.size() == 0) continue;
        pieces.push_back({member, own[member], begin + range.begin, range.size()});
        own[member] += range.size();
      }
    }
    begin += length;
  }
  return pieces;
}

int64_t Tokens(const RingLayout& layout) {
  int64_t tokens = 0;
  for (const int64_t length : layout.lengths) tokens += length;
  return tokens;
}

// First or second parts of this member against all keys up to their own.
std::vector<AttentionSpan> Spans(const RingLayout& layout, int part) {
  std::vector<AttentionSpan> spans;
  int64_t row = 0, begin = 0;
  for (const int64_t length : layout.lengths) {
    const std::array<TokenRange, 2> ranges =
        ZigzagRanges(length, static_cast<int>(layout.ranks.size()), layout.member);
    const TokenRange& range = ranges[part];
    const int64_t at = row + (part == 0 ? 0 : ranges[0].size());
    if (range.size() > 0) spans.push_back({at, range.size(), begin, range.end, /*causal=*/true});
    row += ranges[0].size() + ranges[1].size();
    begin += length;
  }
  return spans;
}

// Rows of this member go to all others and theirs come here; `home`: the other way round, into
// `returned`, one block of own rows for each member.
Event ExchangePieces(const RingLayout& layout, const TensorView& own, const TensorView& whole,
                     bool home, const TensorView& returned, Transport& transport, Stream& stream) {
  std::vector<Message> sends, receives;
  const int64_t rows = layout.rows();
  for (const Piece& piece : PiecesOf(layout)) {
    if (piece.member != layout.member) {
      const Message message{layout.ranks[piece.member],
                            whole.Slice(0, piece.whole_row, piece.whole_row + piece.rows)};
      (home ? sends : receives).push_back(message);
      continue;
    }
    for (int other = 0; other < static_cast<int>(layout.ranks.size()); ++other) {
      if (other == layout.member) continue;
      const int64_t at = home ? other * rows + piece.own_row : piece.own_row;
      const Message message{layout.ranks[other],
                            (home ? returned : own).Slice(0, at, at + piece.rows)};
      (home ? receives : sends).push_back(message);
    }
  }
  return transport.Exchange(std::move(sends), std::move(receives), stream);
}

TensorView Contiguous(const TensorView& x, const TensorView& copy, Stream& stream) {
  const TensorView to = copy.Reshape({x.dim(0), x.dim(1), x.dim(2)});
  Copy(x, to, stream);
  return to;
}

}  // namespace

absl::Status GatheredAttentionForward(const RingLayout& layout,
                                      const std::vector<AttentionSpan>& whole, TensorView q,
                                      TensorView k, TensorView v, float scale, TensorView out,
                                      TensorView lse, Transport& transport, Stream& stream,
                                      RingWorkspace& workspace) {
  const int64_t rows = layout.rows(), tokens = Tokens(layout), width = k.dim(1) * k.dim(2);
  absl::StatusOr<WorkspaceTensors> memory = WorkspaceTensors::Allocate(
      stream.device().memory(), {{rows, width}, {rows, width}, {tokens, width}, {tokens, width}},
      &workspace);
  if (!memory.ok()) return memory.status();
  std::array<TensorView, 2> gathered;
  std::array<Event, 2> arrivals;
  for (int i = 0; i < 2; ++i) {
    const TensorView own = Contiguous((i == 0 ? k : v).Slice(0, 0, rows), (*memory)[i], stream);
    gathered[i] = (*memory)[2 + i].Reshape({tokens, k.dim(1), k.dim(2)});
    arrivals[i] = ExchangePieces(layout, own, gathered[i], false, {}, transport, stream);
    for (const Piece& piece : PiecesOf(layout)) {
      if (piece.member != layout.member) continue;
      Copy(own.Slice(0, piece.own_row, piece.own_row + piece.rows),
           gathered[i].Slice(0, piece.whole_row, piece.whole_row + piece.rows), stream);
    }
  }
  if (!whole.empty()) AttentionForward(q, k, v, whole, scale, out, lse, stream);
  for (const Event& arrival : arrivals) memory->Await(arrival, stream);
  for (int part = 0; part < 2; ++part) {
    const std::vector<AttentionSpan> spans = Spans(layout, part);
    if (!spans.empty()) {
      AttentionForward(q, gathered[0], gathered[1], spans, scale, out, lse, stream);
    }
  }
  memory->HoldUntilHere(stream);
  return absl::OkStatus();
}

absl::Status GatheredAttentionBackward(const RingLayout& layout,
                                       const std::vector<AttentionSpan>& whole, TensorView q,
                                       TensorView k, TensorView v, TensorView dout, TensorView lse,
                                       TensorView delta, float scale, TensorView dq, TensorView dk,
                                       TensorView dv, Transport& transport, Stream& stream,
                                       RingWorkspace& workspace) {
  const int64_t rows = layout.rows(), tokens = Tokens(layout), width = k.dim(1) * k.dim(2);
  const int64_t members = static_cast<int64_t>(layout.ranks.size());
  absl::StatusOr<WorkspaceTensors> memory = WorkspaceTensors::Allocate(stream.device().memory(),
                                                                       {{rows, width},
                                                                        {rows, width},
                                                                        {tokens, width},
                                                                        {tokens, width},
                                                                        {tokens, width},
                                                                        {tokens, width},
                                                                        {members * rows, width},
                                                                        {members * rows, width}},
                                                                       &workspace);
  if (!memory.ok()) return memory.status();
  std::array<TensorView, 2> gathered, gradients, returned;
  std::array<Event, 2> arrivals;
  for (int i = 0; i < 2; ++i) {
    const TensorView own = Contiguous((i == 0 ? k : v).Slice(0, 0, rows), (*memory)[i], stream);
    gathered[i] = (*memory)[2 + i].Reshape({tokens, k.dim(1), k.dim(2)});
    gradients[i] = (*memory)[4 + i].Reshape({tokens, k.dim(1), k.dim(2)});
    returned[i] = (*memory)[6 + i].Reshape({members * rows, k.dim(1), k.dim(2)});
    arrivals[i] = ExchangePieces(layout, own, gathered[i], false, {}, transport, stream);
    for (const Piece& piece : PiecesOf(layout)) {
      if (piece.member != layout.member) continue;
      Copy(own.Slice(0, piece.own_row, piece.own_row + piece.rows),
           gathered[i].Slice(0, piece.whole_row, piece.whole_row + piece.rows), stream);
    }
    Zero(gradients[i], stream);
  }
  if (!whole.empty()) {
    AttentionBackward(q, k, v, dout, lse, delta, whole, scale, dq, dk, dv, stream);
  }
  for (const Event& arrival : arrivals) memory->Await(arrival, stream);
  for (int part = 0; part < 2; ++part) {
    const std::vector<AttentionSpan> spans = Spans(layout, part);
    if (spans.empty()) continue;
    AttentionBackward(q, gathered[0], gathered[1], dout, lse, delta, spans, scale, dq, gradients[0],
                      gradients[1], stream);
  }
  for (int i = 0; i < 2; ++i) {
    memory->Await(ExchangePieces(layout, {}, gradients[i], true, returned[i], transport, stream),
                  stream);
    const TensorView& sum = i == 0 ? dk : dv;
    for (const Piece& piece : PiecesOf(layout)) {
      if (piece.member != layout.member) continue;
      const TensorView target = sum.Slice(0, piece.own_row, piece.own_row + piece.rows);
      Add(gradients[i].Slice(0, piece.whole_row, piece.whole_row + piece.rows), target, stream);
      for (int64_t other = 0; other < members; ++other) {
        if (other == layout.member) continue;
        const int64_t at = other * rows + piece.own_row;
        Add(returned[i].Slice(0, at, at + piece.rows), target, stream);
      }
    }
  }
  memory->HoldUntilHere(stream);
  return absl::OkStatus();
}

int64_t GatheredBytes(const RingLayout& layout, int64_t kv_width) {
  const int64_t others = static_cast<int64_t>(layout.ranks.size()) - 1;
  const int64_t given = others * layout.rows();
  const int64_t home = Tokens(layout) - layout.rows();
  return (2 * given + home) * 2 * kv_width * SizeOf(DType::kF32);
}

}  // namespace longspan
