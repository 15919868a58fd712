// The forward pass of attention over one block of rows: an online softmax over tiles of keys.
//
// Scores are held transposed, keys down and queries across the lanes. Then the maximum, the sum and
// the rescaling of the softmax are plain vector operations, and a panel stops at the last key that
// it sees.
#include <cmath>
#include <limits>

#include "kernels/cpu/attention_tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_forward.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/attention_pack-inl.h"
#include "kernels/cpu/attention_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan::cpu::HWY_NAMESPACE {
namespace {

// Keys of one tile. Its scores for one panel stay in the first-level cache.
constexpr int64_t kKeyTile = 96;

// Running state of the softmax of one panel, and its part of the scratch memory.
struct Panel {
  float* query;    // (head_dim, kPanel), times scale * log2(e)
  float* output;   // (head_dim, kPanel), not yet divided by `sum`
  float* maximum;  // (kPanel), of the scores so far, in units of log2
  float* sum;      // (kPanel), of 2^(score - maximum)
  // (kPanel): each lane sees keys [first_key, key_end).
  int32_t* first_key;
  int32_t* key_end;
  // The least and the most of both.
  int64_t least_first = 0, most_first = 0;
  int64_t least_end = 0, most_end = 0;
};

// Turns `scores` (keys, kPanel) into 2^(score - maximum), 0 for keys that a lane does not see, and
// updates the state. `offset` is the index of the first key.
template <bool kMasked>
void SoftmaxStep(Panel& panel, int64_t offset, int64_t keys, int64_t head_dim, float* scores) {
  const FloatTag d;
  const IntTag di;
  const auto first = hn::Set(di, static_cast<int32_t>(offset));
  const auto first_left = hn::Sub(hn::LoadU(di, panel.first_key), first);
  const auto first_right = hn::Sub(hn::LoadU(di, panel.first_key + kLanes), first);
  const auto end_left = hn::Sub(hn::LoadU(di, panel.key_end), first);
  const auto end_right = hn::Sub(hn::LoadU(di, panel.key_end + kLanes), first);
  const auto sees = [&](const auto& first_key, const auto& key_end, int64_t key) HWY_ATTR {
    const auto index = hn::Set(di, static_cast<int32_t>(key));
    return hn::RebindMask(d, hn::AndNot(hn::Gt(first_key, index), hn::Gt(key_end, index)));
  };
  const FloatVec lowest = hn::Set(d, std::numeric_limits<float>::lowest());

  const FloatVec old_left = hn::LoadU(d, panel.maximum);
  const FloatVec old_right = hn::LoadU(d, panel.maximum + kLanes);
  FloatVec max_left = old_left, max_right = old_right;
  for (int64_t key = 0; key < keys; ++key) {
    FloatVec left = hn::LoadU(d, scores + key * kPanel);
    FloatVec right = hn::LoadU(d, scores + key * kPanel + kLanes);
    if (kMasked) {
      left = hn::IfThenElse(sees(first_left, end_left, key), left, lowest);
      right = hn::IfThenElse(sees(first_right, end_right, key), right, lowest);
    }
    max_left = hn::Max(max_left, left);
    max_right = hn::Max(max_right, right);
  }

  FloatVec sum_left = hn::Zero(d), sum_right = hn::Zero(d);
  for (int64_t key = 0; key < keys; ++key) {
    float* row = scores + key * kPanel;
    FloatVec left = Exp2(hn::Sub(hn::LoadU(d, row), max_left));
    FloatVec right = Exp2(hn::Sub(hn::LoadU(d, row + kLanes), max_right));
    if (kMasked) {
      left = hn::IfThenElseZero(sees(first_left, end_left, key), left);
      right = hn::IfThenElseZero(sees(first_right, end_right, key), right);
    }
    sum_left = hn::Add(sum_left, left);
    sum_right = hn::Add(sum_right, right);
    hn::StoreU(left, d, row);
    hn::StoreU(right, d, row + kLanes);
  }

  // The difference of two lowest() is 0, and of a score and lowest() at most -inf: never NaN.
  const FloatVec shrink_left = Exp2(hn::Sub(old_left, max_left));
  const FloatVec shrink_right = Exp2(hn::Sub(old_right, max_right));
  hn::StoreU(hn::MulAdd(hn::LoadU(d, panel.sum), shrink_left, sum_left), d, panel.sum);
  hn::StoreU(hn::MulAdd(hn::LoadU(d, panel.sum + kLanes), shrink_right, sum_right), d,
             panel.sum + kLanes);
  hn::StoreU(max_left, d, panel.maximum);
  hn::StoreU(max_right, d, panel.maximum + kLanes);
  if (hn::AllTrue(d, hn::Eq(old_left, max_left)) && hn::AllTrue(d, hn::Eq(old_right, max_right))) {
    return;
  }
  for (int64_t i = 0; i < head_dim; ++i) {
    float* row = panel.output + i * kPanel;
    hn::StoreU(hn::Mul(hn::LoadU(d, row), shrink_left), d, row);
    hn::StoreU(hn::Mul(hn::LoadU(d, row + kLanes), shrink_right), d, row + kLanes);
  }
}

void WriteResult(const AttentionForwardTensors& tensors, const HeadRows& rows, const Panel& panel,
                 int64_t begin, int64_t end) {
  constexpr double kLn2 = 0.69314718055994530942;
  float inverse[kPanel];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t lane = row - begin;
    if (panel.first_key[lane] >= panel.key_end[lane]) {
      // Only zeros were added to the output.
      inverse[lane] = 1;
      rows.Scalar(tensors.lse, row) = -std::numeric_limits<float>::infinity();
    } else {
      inverse[lane] = 1 / panel.sum[lane];
      rows.Scalar(tensors.lse, row) = static_cast<float>(
          panel.maximum[lane] * kLn2 + std::log(static_cast<double>(panel.sum[lane])));
    }
  }
  UnpackPanel<false>(panel.output, inverse, end - begin, rows.head_dim,
                     [&](int64_t lane) { return rows.Vector(tensors.out, begin + lane); });
}

void ForwardBlock(const AttentionForwardTensors& tensors, const AttentionSpan& span,
                  int64_t kv_head, int64_t row_begin, int64_t row_end) {
  constexpr int64_t kMaxPanels = 128 / kPanel;
  static_assert(kMaxPanels >= 1);
  const AttentionShape& shape = tensors.shape;
  const int64_t head_dim = shape.head_dim;
  const HeadRows rows(shape, span, kv_head);
  const int64_t panel_count = (row_end - row_begin + kPanel - 1) / kPanel;
  const int64_t panel_size = head_dim * kPanel;

  float* scratch = AttentionScratch(panel_count * (2 * panel_size + 2 * kPanel) +
                                    kKeyTile * (2 * head_dim + kPanel));
  auto take = [&](int64_t floats) {
    float* taken = scratch;
    scratch += floats;
    return taken;
  };
  float* const queries = take(panel_count * panel_size);
  float* const outputs = take(panel_count * panel_size);
  float* const maxima = take(panel_count * kPanel);
  float* const sums = take(panel_count * kPanel);
  float* const scores = take(kKeyTile * kPanel);
  float* const keys = take(kKeyTile * head_dim);
  float* const values = take(kKeyTile * head_dim);
  int32_t first_keys[kMaxPanels * kPanel], key_ends[kMaxPanels * kPanel];

  constexpr float kLog2E = 1.44269504f;
  PackTransposed(rows, tensors.q, row_begin, row_end, shape.scale * kLog2E, queries);
  std::fill(outputs, outputs + panel_count * panel_size, 0.0f);
  std::fill(maxima, maxima + panel_count * kPanel, std::numeric_limits<float>::lowest());
  std::fill(sums, sums + panel_count * kPanel, 0.0f);
  Panel panels[kMaxPanels];
  for (int64_t p = 0; p < panel_count; ++p) {
    const int64_t begin = row_begin + p * kPanel;
    const int64_t end = std::min(begin + kPanel, row_end);
    Panel& panel = panels[p];
    panel.query = queries + p * panel_size;
    panel.output = outputs + p * panel_size;
    panel.maximum = maxima + p * kPanel;
    panel.sum = sums + p * kPanel;
    panel.first_key = first_keys + p * kPanel;
    panel.key_end = key_ends + p * kPanel;
    panel.least_first = FirstKeyOf(span, begin / shape.group);
    panel.most_first = FirstKeyOf(span, (end - 1) / shape.group);
    panel.least_end = EndOfKeysOf(span, begin / shape.group);
    panel.most_end = EndOfKeysOf(span, (end - 1) / shape.group);
    for (int64_t lane = 0; lane < kPanel; ++lane) {
      // Lanes without a row see what the last one sees: they need no mask and nobody looks at them.
      const int64_t row = std::min(begin + lane, end - 1);
      panel.first_key[lane] = static_cast<int32_t>(FirstKeyOf(span, row / shape.group));
      panel.key_end[lane] = static_cast<int32_t>(EndOfKeysOf(span, row / shape.group));
    }
  }

  const int64_t key_end = panels[panel_count - 1].most_end;
  for (int64_t offset = panels[0].least_first; offset < key_end; offset += kKeyTile) {
    const int64_t tile = std::min(kKeyTile, key_end - offset);
    const int64_t key_row = span.key_begin + offset;
    PackRows(tensors.k.Row(key_row) + kv_head * head_dim, tensors.k.stride, tile, head_dim, keys);
    PackRows(tensors.v.Row(key_row) + kv_head * head_dim, tensors.v.stride, tile, head_dim, values);
    for (int64_t p = 0; p < panel_count; ++p) {
      Panel& panel = panels[p];
      const int64_t count = std::min(tile, panel.most_end - offset);
      if (count <= 0 || panel.least_first >= offset + count) continue;
      PanelProduct<Layout::kRowMajor, false>(count, head_dim, keys, head_dim, panel.query, kPanel,
                                             scores, kPanel);
      if (panel.least_end - offset < count || panel.most_first > offset) {
        SoftmaxStep<true>(panel, offset, count, head_dim, scores);
      } else {
        SoftmaxStep<false>(panel, offset, count, head_dim, scores);
      }
      PanelProduct<Layout::kColumnMajor, true>(head_dim, count, values, head_dim, scores, kPanel,
                                               panel.output, kPanel);
    }
  }
  for (int64_t p = 0; p < panel_count; ++p) {
    const int64_t begin = row_begin + p * kPanel;
    WriteResult(tensors, rows, panels[p], begin, std::min(begin + kPanel, row_end));
  }
}

}  // namespace
}  // namespace longspan::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan::cpu {

HWY_EXPORT(ForwardBlock);

void AttentionForwardBlock(const AttentionForwardTensors& tensors, const AttentionSpan& span,
                           int64_t kv_head, int64_t row_begin, int64_t row_end) {
  HWY_DYNAMIC_DISPATCH(ForwardBlock)(tensors, span, kv_head, row_begin, row_end);
}

}  // namespace longspan::cpu
#endif  // HWY_ONCE
