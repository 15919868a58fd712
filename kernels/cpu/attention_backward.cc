// The backward pass of attention over one range of keys.
//
// As in the forward pass, P and dS are held transposed, keys down and rows across the lanes, a
// block of rows wide. With P = exp(S - lse) and dS = P * (dP - delta):  dV += P^T dO,  dK += scale
// * dS^T Q,  dQ += scale * dS K.
#include <cmath>
#include <limits>

#include "kernels/cpu/attention_tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_backward.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/attention_pack-inl.h"
#include "kernels/cpu/attention_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longspan::cpu::HWY_NAMESPACE {
namespace {

// Keys of one tile. P and dS of a tile and a block of rows stay in the second-level cache, a panel
// of them in the first.
constexpr int64_t kKeyTile = 48;
constexpr int64_t kMaxRows = 128;
constexpr int64_t kMaxPanels = kMaxRows / kPanel;
// An odd number of cache lines on AVX2, so that the rows of P and dS fall into different sets.
constexpr int64_t kScoreStride = kMaxRows + kPanel;

// A block of rows, packed. All pointers are into the scratch memory.
struct Block {
  int64_t panels = 0;
  float* query;           // [panel][head_dim][kPanel], times scale * log2(e)
  float* dout;            // [panel][head_dim][kPanel]
  float* query_gradient;  // [panel][head_dim][kPanel]
  float* query_rows;      // [column panel][row][kPanel], times scale
  float* dout_rows;       // [column panel][row][kPanel]
  float lse[kMaxRows];    // in units of log2; +inf for lanes without a row: they add zeros
  float delta[kMaxRows];
  // Each lane sees keys [first_key, key_end).
  int32_t first_key[kMaxRows], key_end[kMaxRows];
  // The least and the most of both, in each panel.
  int64_t least_first[kMaxPanels], most_first[kMaxPanels];
  int64_t least_end[kMaxPanels], most_end[kMaxPanels];
};

void PackBlock(const AttentionBackwardTensors& tensors, const HeadRows& rows,
               const AttentionSpan& span, int64_t begin, int64_t end, Block& block) {
  constexpr float kLog2E = 1.44269504f;
  constexpr double kExactLog2E = 1.44269504088896340736;
  const AttentionShape& shape = tensors.shape;
  block.panels = (end - begin + kPanel - 1) / kPanel;
  PackTransposed(rows, tensors.q, begin, end, shape.scale * kLog2E, block.query);
  PackTransposed(rows, tensors.dout, begin, end, 1.0f, block.dout);
  PackColumnPanels(rows, tensors.q, begin, end, block.panels * kPanel, shape.scale,
                   block.query_rows);
  PackColumnPanels(rows, tensors.dout, begin, end, block.panels * kPanel, 1.0f, block.dout_rows);
  std::fill(block.query_gradient, block.query_gradient + block.panels * shape.head_dim * kPanel,
            0.0f);
  for (int64_t lane = 0; lane < block.panels * kPanel; ++lane) {
    const int64_t row = std::min(begin + lane, end - 1);
    const bool exists = begin + lane < end;
    const float lse = rows.Scalar(tensors.lse, row);
    // A row that saw no key at all contributes nothing, whatever sign the infinity has.
    block.lse[lane] = exists && !std::isinf(lse) ? static_cast<float>(lse * kExactLog2E)
                                                 : std::numeric_limits<float>::infinity();
    block.delta[lane] = exists ? rows.Scalar(tensors.delta, row) : 0.0f;
    block.first_key[lane] = static_cast<int32_t>(FirstKeyOf(span, row / shape.group));
    block.key_end[lane] = static_cast<int32_t>(EndOfKeysOf(span, row / shape.group));
  }
  for (int64_t p = 0; p < block.panels; ++p) {
    const int64_t first = p * kPanel, last = first + kPanel - 1;
    block.least_first[p] = block.first_key[first];
    block.most_first[p] = block.first_key[last];
    block.least_end[p] = block.key_end[first];
    block.most_end[p] = block.key_end[last];
  }
}

// Turns scores S into P and dP into dS, in place, for `keys` keys of one panel; rows of both are
// kScoreStride apart.
template <bool kMasked>
void GradientOfScores(const Block& block, int64_t panel, int64_t offset, int64_t keys,
                      float* scores, float* dscores) {
  const FloatTag d;
  const IntTag di;
  const int64_t lane = panel * kPanel;
  const auto first = hn::Set(di, static_cast<int32_t>(offset));
  for (int64_t half = 0; half < kPanel; half += kLanes) {
    const FloatVec lse = hn::LoadU(d, block.lse + lane + half);
    const FloatVec delta = hn::LoadU(d, block.delta + lane + half);
    const auto first_key = hn::Sub(hn::LoadU(di, block.first_key + lane + half), first);
    const auto key_end = hn::Sub(hn::LoadU(di, block.key_end + lane + half), first);
    const FloatVec highest = hn::Set(d, 127.0f);
    for (int64_t key = 0; key < keys; ++key) {
      float* score = scores + key * kScoreStride + half;
      float* dscore = dscores + key * kScoreStride + half;
      // Above 127 only if lse is not that of these scores: Exp2 is not defined there.
      const FloatVec exponent = hn::Min(highest, hn::Sub(hn::LoadU(d, score), lse));
      FloatVec p = Exp2(exponent);
      FloatVec ds = hn::Mul(p, hn::Sub(hn::LoadU(d, dscore), delta));
      if (kMasked) {
        const auto index = hn::Set(di, static_cast<int32_t>(key));
        const auto sees =
            hn::RebindMask(d, hn::AndNot(hn::Gt(first_key, index), hn::Gt(key_end, index)));
        p = hn::IfThenElseZero(sees, p);
        ds = hn::IfThenElseZero(sees, ds);
      }
      hn::StoreU(p, d, score);
      hn::StoreU(ds, d, dscore);
    }
  }
}

void ZeroKeys(int64_t begin, int64_t end, float* scores) {
  for (int64_t key = begin; key < end; ++key) {
    std::fill(scores + key * kScoreStride, scores + key * kScoreStride + kPanel, 0.0f);
  }
}

// gradient (keys, head_dim) += scores (keys, inner) * rows, `rows` as PackColumnPanels makes them,
// the distance between column panels being `padded` rows.
void AddKeyGradient(int64_t keys, int64_t inner, const float* scores, const float* rows,
                    int64_t padded, int64_t head_dim, float* gradient, int64_t stride) {
  int64_t column = 0;
  for (; column + kPanel <= head_dim; column += kPanel) {
    PanelProduct<Layout::kRowMajor, true>(keys, inner, scores, kScoreStride, rows + column * padded,
                                          kPanel, gradient + column, stride);
  }
  if (column == head_dim) return;
  HWY_ALIGN float rest[kKeyTile * kPanel];
  PanelProduct<Layout::kRowMajor, false>(keys, inner, scores, kScoreStride, rows + column * padded,
                                         kPanel, rest, kPanel);
  for (int64_t key = 0; key < keys; ++key) {
    float* target = gradient + key * stride + column;
    for (int64_t i = 0; i < head_dim - column; ++i) target[i] += rest[key * kPanel + i];
  }
}

void BackwardPart(const AttentionBackwardTensors& tensors, const AttentionSpan& span,
                  int64_t kv_head, int64_t key_begin, int64_t key_end, float* partial_dq) {
  const AttentionShape& shape = tensors.shape;
  const int64_t head_dim = shape.head_dim;
  const HeadRows rows(shape, span, kv_head);
  const int64_t block_rows = AttentionBlockRows(head_dim);
  const int64_t columns = (head_dim + kPanel - 1) / kPanel * kPanel;

  float* scratch = AttentionScratch(block_rows * (3 * head_dim + 2 * columns) +
                                    kKeyTile * 2 * (kScoreStride + head_dim));
  auto take = [&](int64_t floats) {
    float* taken = scratch;
    scratch += floats;
    return taken;
  };
  Block block;
  block.query = take(block_rows * head_dim);
  block.dout = take(block_rows * head_dim);
  block.query_gradient = take(block_rows * head_dim);
  block.query_rows = take(block_rows * columns);
  block.dout_rows = take(block_rows * columns);
  float* const scores = take(kKeyTile * kScoreStride);
  float* const dscores = take(kKeyTile * kScoreStride);
  float* const keys = take(kKeyTile * head_dim);
  float* const values = take(kKeyTile * head_dim);

  float scales[kPanel];
  std::fill(scales, scales + kPanel, shape.scale);

  const QueryRange queries = QueriesThatSee(span, key_begin, key_end);
  const int64_t first_row = queries.begin * shape.group;
  const int64_t row_end = queries.end * shape.group;
  for (int64_t begin = first_row; begin < row_end; begin += block_rows) {
    const int64_t end = std::min(begin + block_rows, row_end);
    PackBlock(tensors, rows, span, begin, end, block);
    const int64_t padded = block.panels * kPanel;
    const int64_t last_key = std::min(key_end, block.most_end[block.panels - 1]);
    for (int64_t offset = std::max(key_begin, block.least_first[0]); offset < last_key;
         offset += kKeyTile) {
      const int64_t tile = std::min(kKeyTile, last_key - offset);
      const int64_t key_row = span.key_begin + offset;
      const int64_t key_column = kv_head * head_dim;
      PackRows(tensors.k.Row(key_row) + key_column, tensors.k.stride, tile, head_dim, keys);
      PackRows(tensors.v.Row(key_row) + key_column, tensors.v.stride, tile, head_dim, values);
      int64_t first_panel = 0;
      while (block.most_end[first_panel] <= offset) ++first_panel;
      int64_t panel_end = block.panels;
      while (panel_end > first_panel && block.least_first[panel_end - 1] >= offset + tile) {
        --panel_end;
      }
      for (int64_t p = first_panel; p < panel_end; ++p) {
        const int64_t count = std::min(tile, block.most_end[p] - offset);
        float* const panel_scores = scores + p * kPanel;
        float* const panel_dscores = dscores + p * kPanel;
        const int64_t place = p * head_dim * kPanel;
        PanelProduct<Layout::kRowMajor, false>(count, head_dim, keys, head_dim, block.query + place,
                                               kPanel, panel_scores, kScoreStride);
        PanelProduct<Layout::kRowMajor, false>(count, head_dim, values, head_dim,
                                               block.dout + place, kPanel, panel_dscores,
                                               kScoreStride);
        if (block.least_end[p] - offset < count || block.most_first[p] > offset) {
          GradientOfScores<true>(block, p, offset, count, panel_scores, panel_dscores);
        } else {
          GradientOfScores<false>(block, p, offset, count, panel_scores, panel_dscores);
        }
        ZeroKeys(count, tile, panel_scores);
        ZeroKeys(count, tile, panel_dscores);
        PanelProduct<Layout::kColumnMajor, true>(head_dim, count, keys, head_dim, panel_dscores,
                                                 kScoreStride, block.query_gradient + place,
                                                 kPanel);
      }
      const int64_t skipped = first_panel * kPanel, inner = (panel_end - first_panel) * kPanel;
      AddKeyGradient(tile, inner, scores + skipped, block.dout_rows + skipped * kPanel, padded,
                     head_dim, tensors.dv.Row(key_row) + key_column, tensors.dv.stride);
      AddKeyGradient(tile, inner, dscores + skipped, block.query_rows + skipped * kPanel, padded,
                     head_dim, tensors.dk.Row(key_row) + key_column, tensors.dk.stride);
    }
    for (int64_t p = 0; p < block.panels; ++p) {
      const int64_t first = begin + p * kPanel;
      const int64_t lanes = std::min(kPanel, end - first);
      const float* gradient = block.query_gradient + p * head_dim * kPanel;
      if (partial_dq != nullptr) {
        UnpackPanel<false>(gradient, scales, lanes, head_dim, [&](int64_t lane) {
          return partial_dq + (first + lane - first_row) * head_dim;
        });
      } else {
        UnpackPanel<true>(gradient, scales, lanes, head_dim,
                          [&](int64_t lane) { return rows.Vector(tensors.dq, first + lane); });
      }
    }
  }
}

}  // namespace
}  // namespace longspan::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan::cpu {

HWY_EXPORT(BackwardPart);

void AttentionBackwardPart(const AttentionBackwardTensors& tensors, const AttentionSpan& span,
                           int64_t kv_head, int64_t key_begin, int64_t key_end, float* partial_dq) {
  HWY_DYNAMIC_DISPATCH(BackwardPart)(tensors, span, kv_head, key_begin, key_end, partial_dq);
}

}  // namespace longspan::cpu
#endif  // HWY_ONCE
