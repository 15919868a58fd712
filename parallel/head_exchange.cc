#include "parallel/head_exchange.h"

#include <array>
#include <utility>

#include "kernels/device/check.h"
#include "kernels/elementwise.h"
#include "parallel/plan.h"

namespace longspan {
namespace {

RingLayout RingOfHeads(const RingLayout& layout) {
  const int members = layout.head_parallel, count = static_cast<int>(layout.ranks.size());
  LONGSPAN_CHECK(members >= 1 && count % members == 0,
                 "the width of head parallelism divides that of the group");
  RingLayout ring;
  for (int i = layout.member % members; i < count; i += members) {
    ring.ranks.push_back(layout.ranks[i]);
  }
  ring.member = layout.member / members;
  ring.lengths = layout.lengths;
  return ring;
}

}  // namespace

HeadExchange::HeadExchange(const RingLayout& layout)
    : layout_(layout),
      members_(layout.head_parallel),
      first_(layout.member / layout.head_parallel * layout.head_parallel),
      index_(layout.member % layout.head_parallel),
      ring_(RingOfHeads(layout)),
      own_rows_(layout.rows()) {
  for (int index = 0; index < members_; ++index) chunks_.push_back(ChunksOf(index));
}

std::vector<HeadExchange::Chunk> HeadExchange::ChunksOf(int index) const {
  std::vector<Chunk> chunks;
  Chunk next;
  const std::vector<SequenceRows> united = BlockRows(ring_, ring_.member, /*whole=*/true);
  for (size_t i = 0; i < layout_.lengths.size(); ++i) {
    const std::array<TokenRange, 2> block = ZigzagRanges(layout_.lengths[i],
                                                         static_cast<int>(ring_.ranks.size()),
                                                         ring_.member),
                                    own = ZigzagRanges(layout_.lengths[i],
                                                       static_cast<int>(layout_.ranks.size()),
                                                       first_ + index);
    for (int part = 0; part < 2; ++part) {
      const int64_t begin = united[i].begin + (part == 0 ? 0 : united[i].first);
      next.united = begin + own[part].begin - block[part].begin;
      next.count = own[part].size();
      LONGSPAN_CHECK(own[part].begin >= block[part].begin && own[part].end <= block[part].end,
                     "a member's part lies in that of its block");
      if (next.count == 0) continue;
      Chunk* const last = chunks.empty() ? nullptr : &chunks.back();
      if (last != nullptr && last->united + last->count == next.united) {
        last->count += next.count;
      } else {
        chunks.push_back(next);
      }
      next.own += next.count;
    }
  }
  return chunks;
}

int64_t HeadExchange::WidthOf(const std::vector<TensorView>& fields) const {
  int64_t width = 0;
  for (const TensorView& field : fields) {
    LONGSPAN_CHECK(field.dim(1) % members_ == 0,
                   "the width of head parallelism divides the number of heads");
    width += field.dim(1) / members_ * (field.rank() == 3 ? field.dim(2) : 1);
  }
  return width;
}

TensorView HeadExchange::FieldIn(const TensorView& matrix, const std::vector<TensorView>& fields,
                                 size_t index) const {
  int64_t begin = 0;
  for (size_t i = 0; i < index; ++i) begin += WidthOf({fields[i]});
  const TensorView& field = fields[index];
  const TensorView columns = matrix.Slice(1, begin, begin + WidthOf({field}));
  if (field.rank() == 2) return columns;
  return columns.Reshape({matrix.dim(0), field.dim(1) / members_, field.dim(2)});
}

TensorView HeadExchange::HeadsOf(const TensorView& field, int index) const {
  const int64_t heads = field.dim(1) / members_;
  return field.Slice(1, index * heads, (index + 1) * heads);
}

TensorView HeadExchange::ScratchOf(const TensorView& scratch, int index, int64_t width) const {
  const int64_t place = index < index_ ? index : index - 1;
  // Rows of any width lie close together, so that what is sent of them is contiguous.
  return TensorView(scratch.data<float>() + place * own_rows_ * width, DType::kF32,
                    {own_rows_, width});
}

Event HeadExchange::ToHeads(const std::vector<TensorView>& fields, const TensorView& united,
                            const TensorView& scratch, Transport& transport, Stream& stream) const {
  const int64_t width = WidthOf(fields);
  std::vector<Message> sends, receives;
  for (int index = 0; index < members_; ++index) {
    if (index == index_) {
      for (const Chunk& chunk : chunks_[index]) {
        const TensorView rows = united.Slice(0, chunk.united, chunk.united + chunk.count);
        for (size_t i = 0; i < fields.size(); ++i) {
          Convert(HeadsOf(fields[i].Slice(0, chunk.own, chunk.own + chunk.count), index),
                  FieldIn(rows, fields, i), stream);
        }
      }
      continue;
    }
    if (own_rows_ > 0) {
      const TensorView rows = ScratchOf(scratch, index, width);
      for (size_t i = 0; i < fields.size(); ++i) {
        Convert(HeadsOf(fields[i].Slice(0, 0, own_rows_), index), FieldIn(rows, fields, i), stream);
      }
      for (const Chunk& chunk : chunks_[index_]) {
        sends.push_back({RankOf(index), rows.Slice(0, chunk.own, chunk.own + chunk.count)});
      }
    }
    for (const Chunk& chunk : chunks_[index]) {
      receives.push_back(
          {RankOf(index), united.Slice(0, chunk.united, chunk.united + chunk.count)});
    }
  }
  if (sends.empty() && receives.empty()) return Event();
  return transport.Exchange(std::move(sends), std::move(receives), stream);
}

Event HeadExchange::ToRows(const TensorView& united, const TensorView& scratch,
                           Transport& transport, Stream& stream) const {
  std::vector<Message> sends, receives;
  for (int index = 0; index < members_; ++index) {
    if (index == index_) continue;
    for (const Chunk& chunk : chunks_[index]) {
      sends.push_back({RankOf(index), united.Slice(0, chunk.united, chunk.united + chunk.count)});
    }
    if (own_rows_ == 0) continue;
    const TensorView rows = ScratchOf(scratch, index, united.dim(1));
    for (const Chunk& chunk : chunks_[index_]) {
      receives.push_back({RankOf(index), rows.Slice(0, chunk.own, chunk.own + chunk.count)});
    }
  }
  if (sends.empty() && receives.empty()) return Event();
  return transport.Exchange(std::move(sends), std::move(receives), stream);
}

void HeadExchange::TakeRows(Take take, const TensorView& united, const TensorView& scratch,
                            const std::vector<TensorView>& fields, Stream& stream) const {
  const auto move = [&](const TensorView& from, const TensorView& to) {
    take == Take::kAdd ? Add(from, to, stream) : Copy(from, to, stream);
  };
  if (own_rows_ == 0) return;
  for (size_t i = 0; i < fields.size(); ++i) {
    for (int index = 0; index < members_; ++index) {
      const TensorView to = HeadsOf(fields[i].Slice(0, 0, own_rows_), index);
      if (index != index_) {
        move(FieldIn(ScratchOf(scratch, index, united.dim(1)), fields, i), to);
        continue;
      }
      for (const Chunk& chunk : chunks_[index]) {
        const TensorView rows = united.Slice(0, chunk.united, chunk.united + chunk.count);
        move(FieldIn(rows, fields, i), to.Slice(0, chunk.own, chunk.own + chunk.count));
      }
    }
  }
}

}  // namespace longspan
