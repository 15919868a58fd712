#include "kernels/cuda/attention_batches.h"

#include <algorithm>
#include <compare>
#include <map>

namespace longspan::cuda {
namespace {

constexpr int64_t kFewestQueries = 128;  // a smaller block would not fill the GPU's tiles
constexpr int64_t kMostDocuments = 1024;

// Blocks of a document's queries, each with the keys that it sees.
std::vector<AttentionDocument> QueryBlocks(const AttentionDocument& document, bool causal,
                                           int64_t queries) {
  std::vector<AttentionDocument> blocks;
  for (int64_t begin = 0; begin < document.query_count; begin += queries) {
    const int64_t end = std::min(begin + queries, document.query_count);
    AttentionDocument block = document;
    block.query_begin += begin;
    block.query_count = end - begin;
    block.aligned_keys -= document.query_count - end;
    if (causal) block.key_count = std::min(block.key_count, block.aligned_keys);
    blocks.push_back(block);
  }
  return blocks;
}

// The document, or two with a part of its queries each where their number gives NaN.
std::vector<AttentionDocument> InServedLengths(const AttentionDocument& document, bool causal) {
  constexpr int64_t kBehind = 32;
  const int64_t queries = document.query_count;
  return QueryBlocks(document, causal, GivesNan(queries) ? queries - kBehind : queries);
}

// Which keys a span's queries see, without those queries that see none: these go to `cut`.
AttentionDocument DocumentOf(const AttentionSpan& span, AttentionBatches& cut) {
  AttentionDocument document{span.query_begin, span.query_count, span.key_begin, span.key_count,
                             span.key_count};
  // In front: above the diagonal.
  const int64_t above = span.key_count == 0 ? span.query_count
                        : span.causal ? std::max<int64_t>(0, span.query_count - span.key_count)
                                      : 0;
  if (above > 0) cut.without_keys.push_back({span.query_begin, above});
  document.query_begin += above;
  document.query_count -= above;
  if (span.window == 0 || span.causal) return document;
  // Behind: the window has left the last key.
  const int64_t within = std::max<int64_t>(0, span.window - span.distance + span.key_count - 1);
  if (within < document.query_count) {
    cut.without_keys.push_back({document.query_begin + within, document.query_count - within});
    document.query_count = within;
  }
  document.aligned_keys = span.distance + document.query_count;
  return document;
}

}  // namespace

AttentionBatches CutIntoBatches(const std::vector<AttentionSpan>& spans, int64_t heads,
                                int64_t score_bytes) {
  AttentionBatches cut;
  struct Kind {
    bool causal;
    int64_t window;
    bool pads_keys;
    auto operator<=>(const Kind&) const = default;
  };
  std::map<Kind, std::vector<AttentionDocument>> kinds;
  const auto add = [&](const AttentionDocument& part, bool causal, int64_t window) {
    for (const AttentionDocument& document : InServedLengths(part, causal))
      kinds[{causal, window, GivesNan(document.key_count)}].push_back(document);
  };
  for (const AttentionSpan& span : spans) {
    const AttentionDocument document = DocumentOf(span, cut);
    if (document.query_count == 0) continue;
    // Keys before the queries' own are all on this side of the diagonal.
    const bool causal = span.causal || span.window > 0;
    if (score_bytes == 0) {
      add(document, causal, span.window);
      continue;
    }
    AttentionGraphShape shape;
    shape.query_rows = document.query_count;
    shape.key_rows = document.key_count;
    const int64_t row_bytes = heads * Bucketed(shape).key_rows * 2;
    int64_t queries = kFewestQueries;
    while (2 * queries * row_bytes <= score_bytes) queries *= 2;
    for (const AttentionDocument& block : QueryBlocks(document, causal, queries))
      add(block, causal, span.window);
  }
  for (auto& [kind, documents] : kinds) {
    const auto longer = [](const auto& a, const auto& b) {
      return std::max(a.query_count, a.key_count) > std::max(b.query_count, b.key_count);
    };
    if (score_bytes == 0) std::stable_sort(documents.begin(), documents.end(), longer);
    const int64_t most = score_bytes == 0 ? kMostDocuments : 1;
    for (auto next = documents.begin(); next != documents.end();) {
      int64_t count = 1;
      while (2 * count <= std::min<int64_t>(most, documents.end() - next)) count *= 2;
      cut.batches.push_back({kind.causal, kind.window, kind.pads_keys, {next, next + count}});
      next += count;
    }
  }
  return cut;
}

AttentionGraphShape ShapeOf(const AttentionBatch& batch, AttentionGraphShape::Pass pass,
                            int64_t heads, int64_t kv_heads, int64_t head_dim, bool deterministic) {
  AttentionGraphShape shape;
  shape.pass = pass;
  shape.heads = heads;
  shape.kv_heads = kv_heads;
  shape.head_dim = head_dim;
  shape.documents = static_cast<int64_t>(batch.documents.size());
  for (const AttentionDocument& document : batch.documents) {
    shape.query_rows = std::max(shape.query_rows, document.query_count);
    shape.key_rows = std::max(shape.key_rows, batch.KeyRows(document));
  }
  shape.causal = batch.causal;
  shape.window = batch.window;
  shape.pads_keys = batch.pads_keys;
  shape.deterministic = deterministic;
  return shape;
}

}  // namespace longspan::cuda
