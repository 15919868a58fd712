// HeadExchange: inside a ring whose members split heads, the way from "my rows, all heads" to "the
// rows of my block, my heads" and back.
//
// `head_parallel` = h neighbouring members of a ring are a block. Their zigzag shares unite to the
// share of one member of a ring of d / h: parts are cut at floor(k * s / 2d), so those of h
// neighbours end where a cut at floor(k * s / (2d / h)) is, whatever the length. Member i of a
// block takes the i-th h-th of the heads, for the rows of all of them.
#ifndef LONGSPAN_PARALLEL_HEAD_EXCHANGE_H_
#define LONGSPAN_PARALLEL_HEAD_EXCHANGE_H_

#include <cstdint>
#include <vector>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "parallel/ring_layout.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Of the member of `layout`, which must outlive it. Travelling rows hold the same heads of several
// tensors ("fields": (rows, heads, head_dim) or (rows, heads)) side by side, as f32 whatever the
// fields are.
class HeadExchange {
 public:
  explicit HeadExchange(const RingLayout& layout);

  // The ring of this member's heads: one member of each block. Its rows are the block's.
  const RingLayout& ring() const { return ring_; }

  // Elements of a travelling row of `fields`: one member's heads of each.
  int64_t WidthOf(const std::vector<TensorView>& fields) const;
  // Field `index` of `fields` in `matrix`, (rows, WidthOf(fields)): (rows, heads / h, head_dim) or
  // (rows, heads / h), strided.
  TensorView FieldIn(const TensorView& matrix, const std::vector<TensorView>& fields,
                     size_t index) const;

  // Rows of scratch memory of the widest travelling row that either way needs.
  int64_t ScratchRows() const { return (members_ - 1) * own_rows_; }

  // This member's rows of `fields` to the block's members, and its heads of all the block's rows
  // into `united`, (ring().rows(), WidthOf(fields)). The own rows are there at once, the others
  // when the event is done. `scratch` until then: ScratchRows() rows.
  Event ToHeads(const std::vector<TensorView>& fields, const TensorView& united,
                const TensorView& scratch, Transport& transport, Stream& stream) const;

  // The way back: `united` holds results of this member's heads, whose rows go to their members.
  // What comes from the others lies in `scratch` when the event is done, for TakeRows.
  Event ToRows(const TensorView& united, const TensorView& scratch, Transport& transport,
               Stream& stream) const;
  // Copies this member's rows to `fields`, or adds them.
  enum class Take { kCopy, kAdd };
  void TakeRows(Take take, const TensorView& united, const TensorView& scratch,
                const std::vector<TensorView>& fields, Stream& stream) const;

  // Elements that this member sends for travelling rows of `width`.
  int64_t SentToHeads(int64_t width) const { return (members_ - 1) * own_rows_ * width; }
  int64_t SentToRows(int64_t width) const { return (ring_.rows() - own_rows_) * width; }

 private:
  // Rows [own, own + count) of a member are rows [united, united + count) of its block.
  struct Chunk {
    int64_t own = 0, united = 0, count = 0;
  };

  std::vector<Chunk> ChunksOf(int index) const;
  // Rows of `scratch` for the member `index` of the block, another one.
  TensorView ScratchOf(const TensorView& scratch, int index, int64_t width) const;
  // The heads of member `index` of a field.
  TensorView HeadsOf(const TensorView& field, int index) const;
  int RankOf(int index) const { return layout_.ranks[first_ + index]; }

  const RingLayout& layout_;
  const int members_;  // of the block
  const int first_;    // of them, in the whole ring
  const int index_;    // of this member in the block
  const RingLayout ring_;
  const int64_t own_rows_;
  std::vector<std::vector<Chunk>> chunks_;  // by member of the block
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_HEAD_EXCHANGE_H_
