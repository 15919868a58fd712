// Checks the arguments of attention and cuts its work into tasks for the device's threads.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cuda/dispatch.h"

namespace longspan {
namespace {

using cpu::StridedRows;

// A task should be worth this many (row, key) pairs at least: some tens of microseconds.
constexpr double kMinTaskPairs = 16384;
// What a row costs besides its pairs, in pairs: packing, unpacking.
constexpr double kPairsPerRow = 16;
// Of the forward pass, for each thread: enough that the last one to finish is not late.
constexpr double kForwardTasksPerThread = 16;
// Of the backward pass, where more parts cost memory.
constexpr double kBackwardPartsPerThread = 3;
// Shorter parts would spend their time packing rows.
constexpr int64_t kMinPartKeys = 192;
// Rows for each task of the sum of partial dQ.
constexpr int64_t kSumRows = 512;

void CheckHeads(const TensorView& x, int64_t rows, int64_t heads, int64_t head_dim,
                DType dtype = DType::kF32) {
  LONGSPAN_CHECK(x.rank() == 3, "attention takes (rows, heads, head_dim)");
  LONGSPAN_CHECK(x.dtype() == dtype, "a tensor of attention has the wrong dtype");
  LONGSPAN_CHECK(x.dim(0) == rows && x.dim(1) == heads && x.dim(2) == head_dim,
                 "shapes of the tensors of attention do not match");
  LONGSPAN_CHECK(x.dim(1) == 1 || x.stride(1) == head_dim, "heads must be adjacent");
  LONGSPAN_CHECK(x.dim(0) <= 1 || x.stride(0) >= heads * head_dim, "rows overlap");
}

void CheckPerHead(const TensorView& x, int64_t rows, int64_t heads) {
  LONGSPAN_CHECK(x.rank() == 2 && x.dtype() == DType::kF32, "lse and delta are f32 (rows, heads)");
  LONGSPAN_CHECK(x.dim(0) == rows && x.dim(1) == heads, "lse or delta has another shape");
}

// Of q, k, v and dout.
DType InputType(const Stream& stream) {
  return stream.kind() == DeviceKind::kCuda ? DType::kBF16 : DType::kF32;
}

// Returns the shape of the call after checking q, k and v.
cpu::AttentionShape CheckInputs(const TensorView& q, const TensorView& k, const TensorView& v,
                                float scale, DType dtype) {
  LONGSPAN_CHECK(q.rank() == 3 && k.rank() == 3, "attention takes (rows, heads, head_dim)");
  const int64_t heads = q.dim(1), kv_heads = k.dim(1), head_dim = q.dim(2);
  LONGSPAN_CHECK(head_dim >= 1, "head_dim must be positive");
  LONGSPAN_CHECK(kv_heads >= 1 && heads % kv_heads == 0, "heads must be a multiple of kv_heads");
  CheckHeads(q, q.dim(0), heads, head_dim, dtype);
  CheckHeads(k, k.dim(0), kv_heads, head_dim, dtype);
  CheckHeads(v, k.dim(0), kv_heads, head_dim, dtype);
  return {head_dim, heads / kv_heads, scale};
}

void CheckSpans(const std::vector<AttentionSpan>& spans, int64_t query_rows, int64_t key_rows) {
  std::vector<std::pair<int64_t, int64_t>> queries;
  for (const AttentionSpan& span : spans) {
    LONGSPAN_CHECK(span.query_begin >= 0 && span.query_count >= 0 &&
                       span.query_begin + span.query_count <= query_rows,
                   "a span's queries lie outside the tensor");
    LONGSPAN_CHECK(
        span.key_begin >= 0 && span.key_count >= 0 && span.key_begin + span.key_count <= key_rows,
        "a span's keys lie outside the tensor");
    LONGSPAN_CHECK(span.key_count <= std::numeric_limits<int32_t>::max(), "too many keys");
    LONGSPAN_CHECK(span.window >= 0, "a span's window is negative");
    LONGSPAN_CHECK(
        span.window == 0 || !span.causal || span.distance == span.key_count - span.query_count,
        "a causal span's distance is not that of its last query and key");
    if (span.query_count > 0) queries.emplace_back(span.query_begin, span.query_count);
  }
  std::sort(queries.begin(), queries.end());
  for (size_t i = 1; i < queries.size(); ++i) {
    LONGSPAN_CHECK(queries[i - 1].first + queries[i - 1].second <= queries[i].first,
                   "spans overlap in query rows");
  }
}

template <typename T>
StridedRows<T> RowsOf(const TensorView& x) {
  return {x.data<float>(), x.stride(0)};
}

// Sum over queries [begin, end) of the keys that each sees.
double PairsOfQueries(const AttentionSpan& span, int64_t begin, int64_t end) {
  if (begin >= end) return 0;
  if (span.window > 0) {
    double pairs = 0;
    for (int64_t query = begin; query < end; ++query) {
      const int64_t keys = cpu::EndOfKeysOf(span, query) - cpu::FirstKeyOf(span, query);
      pairs += static_cast<double>(std::max<int64_t>(0, keys));
    }
    return pairs;
  }
  if (!span.causal) return static_cast<double>(end - begin) * static_cast<double>(span.key_count);
  // The count grows by one with each query from the first that sees anything.
  const int64_t first = std::max(begin, cpu::FirstQueryThatSees(span, 0));
  if (first >= end || span.key_count == 0) return 0;
  return static_cast<double>(end - first) * 0.5 *
         static_cast<double>(cpu::EndOfKeysOf(span, first) + cpu::EndOfKeysOf(span, end - 1));
}

// Groups of consecutive items, so that each group is worth `grain`: begins, and the end of the
// last.
std::vector<size_t> GroupByCost(const std::vector<double>& costs, double grain) {
  std::vector<size_t> bounds = {0};
  double sum = 0;
  for (size_t i = 0; i < costs.size(); ++i) {
    sum += costs[i];
    if (sum >= grain || i + 1 == costs.size()) {
      bounds.push_back(i + 1);
      sum = 0;
    }
  }
  return bounds;
}

// Runs `body` on all items, the dearest first, several cheap ones to a task.
template <typename Item, typename Body>
void ForItems(std::vector<Item>& items, double grain, ThreadPool& pool, const Body& body) {
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return a.cost > b.cost; });
  std::vector<double> costs;
  costs.reserve(items.size());
  for (const Item& item : items) costs.push_back(item.cost);
  const std::vector<size_t> bounds = GroupByCost(costs, grain);
  pool.ParallelFor(static_cast<int64_t>(bounds.size()) - 1, [&](int64_t group) {
    for (size_t i = bounds[group]; i < bounds[group + 1]; ++i) body(items[i]);
  });
}

struct ForwardItem {
  const AttentionSpan* span;
  int64_t kv_head;
  int64_t row_begin, row_end;
  double cost;
};

// What an item does depends on shapes alone, so the forward pass gives the same bits on any number
// of threads.
void RunForward(const cpu::AttentionForwardTensors& tensors,
                const std::vector<AttentionSpan>& spans, int64_t kv_heads, ThreadPool& pool) {
  const int64_t group = tensors.shape.group;
  const int64_t block = cpu::AttentionBlockRows(tensors.shape.head_dim);
  std::vector<ForwardItem> items;
  double total = 0;
  for (const AttentionSpan& span : spans) {
    const int64_t rows = span.query_count * group;
    for (int64_t begin = 0; begin < rows; begin += block) {
      const int64_t end = std::min(begin + block, rows);
      const int64_t first = begin / group, last = (end - 1) / group;
      const double pairs_per_row =
          PairsOfQueries(span, first, last + 1) / static_cast<double>(last + 1 - first);
      const double cost = (pairs_per_row + kPairsPerRow) * static_cast<double>(end - begin);
      for (int64_t head = 0; head < kv_heads; ++head) {
        items.push_back({&span, head, begin, end, cost});
      }
      total += cost * static_cast<double>(kv_heads);
    }
  }
  const double grain = std::max(kMinTaskPairs, total / (kForwardTasksPerThread * pool.threads()));
  ForItems(items, grain, pool, [&](const ForwardItem& item) {
    cpu::AttentionForwardBlock(tensors, *item.span, item.kv_head, item.row_begin, item.row_end);
  });
}

// Spans that share one range of keys, and how that range is cut into parts. A part's dK and dV
// belong to it alone; its dQ goes straight to the result for the first part, and to memory of its
// own for the others.
struct KeyRange {
  std::vector<const AttentionSpan*> spans;
  std::vector<int64_t> cuts;  // parts + 1 offsets from the first key
  double cost = 0;            // for each KV head
  // For each part but the first: where its partial dQ starts, in floats, for KV head 0, span by
  // span; and the size for one KV head.
  std::vector<int64_t> partial_begin;
  std::vector<int64_t> partial_size;
  int64_t parts() const { return static_cast<int64_t>(cuts.size()) - 1; }
};

// Sum over keys [begin, end) of the rows that see each, for one head of the group.
double PairsOfKeys(const AttentionSpan& span, int64_t begin, int64_t end) {
  double pairs = 0;
  const cpu::QueryRange queries = cpu::QueriesThatSee(span, begin, end);
  for (int64_t query = queries.begin; query < queries.end; ++query) {
    const int64_t key_end = cpu::EndOfKeysOf(span, query);
    if (key_end >= end && span.window == 0) {
      return pairs + static_cast<double>(queries.end - query) * static_cast<double>(end - begin);
    }
    const int64_t first = std::max(begin, cpu::FirstKeyOf(span, query));
    pairs += static_cast<double>(std::max<int64_t>(0, std::min(end, key_end) - first));
  }
  return pairs;
}

std::vector<KeyRange> GroupByKeys(const std::vector<AttentionSpan>& spans) {
  std::vector<const AttentionSpan*> sorted;
  for (const AttentionSpan& span : spans) {
    if (span.query_count > 0 && span.key_count > 0) sorted.push_back(&span);
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto* a, const auto* b) { return a->key_begin < b->key_begin; });
  std::vector<KeyRange> ranges;
  for (const AttentionSpan* span : sorted) {
    if (!ranges.empty()) {
      const AttentionSpan& last = *ranges.back().spans.front();
      if (last.key_begin == span->key_begin && last.key_count == span->key_count) {
        ranges.back().spans.push_back(span);
        continue;
      }
      LONGSPAN_CHECK(last.key_begin + last.key_count <= span->key_begin,
                     "spans of a backward call share some keys, but not all");
    }
    ranges.emplace_back();
    ranges.back().spans.push_back(span);
  }
  return ranges;
}

// Cuts a range into at most `parts` parts of about equal work.
void CutKeys(int64_t parts, KeyRange& range) {
  const int64_t keys = range.spans.front()->key_count;
  parts = std::clamp<int64_t>(parts, 1, std::max<int64_t>(1, keys / kMinPartKeys));
  range.cuts = {0};
  if (parts > 1) {
    double pairs = 0;
    for (const AttentionSpan* span : range.spans) pairs += PairsOfKeys(*span, 0, keys);
    constexpr int64_t kStep = 48;
    double sum = 0;
    for (int64_t key = 0; key + kStep < keys; key += kStep) {
      for (const AttentionSpan* span : range.spans) sum += PairsOfKeys(*span, key, key + kStep);
      const auto made = static_cast<double>(range.cuts.size());
      if (range.parts() + 1 < parts && sum * static_cast<double>(parts) >= pairs * made) {
        range.cuts.push_back(key + kStep);
      }
    }
  }
  range.cuts.push_back(keys);
}

struct BackwardItem {
  const KeyRange* range;
  int64_t kv_head;
  int64_t part;
  double cost;
};

// The rows of a span that see keys of part `part` of its range are this many.
int64_t RowsOfPart(const AttentionSpan& span, const KeyRange& range, int64_t part, int64_t group) {
  const cpu::QueryRange queries = cpu::QueriesThatSee(span, range.cuts[part], range.cuts[part + 1]);
  return (queries.end - queries.begin) * group;
}

// dq += the partial results of the parts, in order.
void AddPartialDq(const cpu::AttentionBackwardTensors& tensors, const std::vector<KeyRange>& ranges,
                  int64_t kv_heads, const float* partials, ThreadPool& pool) {
  struct Chunk {
    const KeyRange* range;
    size_t span;
    int64_t kv_head, row_begin, row_end;
  };
  const int64_t group = tensors.shape.group, head_dim = tensors.shape.head_dim;
  std::vector<Chunk> chunks;
  for (const KeyRange& range : ranges) {
    if (range.parts() == 1) continue;
    for (size_t s = 0; s < range.spans.size(); ++s) {
      const int64_t rows = range.spans[s]->query_count * group;
      for (int64_t head = 0; head < kv_heads; ++head) {
        for (int64_t begin = 0; begin < rows; begin += kSumRows) {
          chunks.push_back({&range, s, head, begin, std::min(begin + kSumRows, rows)});
        }
      }
    }
  }
  pool.ParallelFor(static_cast<int64_t>(chunks.size()), [&](int64_t index) {
    const Chunk& chunk = chunks[index];
    const KeyRange& range = *chunk.range;
    const AttentionSpan& span = *range.spans[chunk.span];
    const cpu::HeadRows rows(tensors.shape, span, chunk.kv_head);
    for (int64_t part = 1; part < range.parts(); ++part) {
      const float* source =
          partials + range.partial_begin[part] + chunk.kv_head * range.partial_size[part];
      for (size_t s = 0; s < chunk.span; ++s) {
        source += RowsOfPart(*range.spans[s], range, part, group) * head_dim;
      }
      const int64_t first = cpu::FirstQueryThatSees(span, range.cuts[part]) * group;
      const int64_t end = std::min(chunk.row_end, first + RowsOfPart(span, range, part, group));
      for (int64_t row = std::max(first, chunk.row_begin); row < end; ++row) {
        float* target = rows.Vector(tensors.dq, row);
        for (int64_t i = 0; i < head_dim; ++i) target[i] += source[(row - first) * head_dim + i];
      }
    }
  });
}

absl::Status RunBackward(const cpu::AttentionBackwardTensors& tensors,
                         const std::vector<AttentionSpan>& spans, int64_t kv_heads,
                         Device& device) {
  ThreadPool& pool = device.threads();
  const int64_t group = tensors.shape.group, head_dim = tensors.shape.head_dim;
  std::vector<KeyRange> ranges = GroupByKeys(spans);
  double total = 0;
  for (KeyRange& range : ranges) {
    for (const AttentionSpan* span : range.spans) {
      range.cost +=
          static_cast<double>(group) * (PairsOfQueries(*span, 0, span->query_count) +
                                        kPairsPerRow * static_cast<double>(span->query_count));
    }
    total += range.cost * static_cast<double>(kv_heads);
  }

  // With one thread nothing is cut. Otherwise no (range, KV head) may be so large that the others
  // wait for it.
  const double share = total / (kBackwardPartsPerThread * pool.threads());
  std::vector<BackwardItem> items;
  int64_t partial_floats = 0;
  for (KeyRange& range : ranges) {
    const double wanted = pool.threads() == 1 ? 1 : std::ceil(0.99 * range.cost / share);
    CutKeys(static_cast<int64_t>(wanted), range);
    range.partial_begin.assign(range.parts(), 0);
    range.partial_size.assign(range.parts(), 0);
    for (int64_t part = 0; part < range.parts(); ++part) {
      if (part > 0) {
        for (const AttentionSpan* span : range.spans) {
          range.partial_size[part] += RowsOfPart(*span, range, part, group) * head_dim;
        }
        range.partial_begin[part] = partial_floats;
        partial_floats += range.partial_size[part] * kv_heads;
      }
      for (int64_t head = 0; head < kv_heads; ++head) {
        items.push_back({&range, head, part, range.cost / static_cast<double>(range.parts())});
      }
    }
  }
  Buffer partials;
  float* partial_dq = nullptr;
  if (partial_floats > 0) {
    absl::StatusOr<Buffer> allocated =
        Buffer::Allocate(device.memory(), partial_floats * SizeOf(DType::kF32), "attention");
    if (!allocated.ok()) return allocated.status();
    partials = *std::move(allocated);
    partial_dq = static_cast<float*>(partials.data());
  }

  const double grain = std::max(kMinTaskPairs / 2, 0.25 * share);
  ForItems(items, grain, pool, [&](const BackwardItem& item) {
    const KeyRange& range = *item.range;
    const int64_t begin = range.cuts[item.part], end = range.cuts[item.part + 1];
    float* partial = nullptr;
    if (item.part > 0) {
      partial = partial_dq + range.partial_begin[item.part] +
                item.kv_head * range.partial_size[item.part];
    }
    for (const AttentionSpan* span : range.spans) {
      cpu::AttentionBackwardPart(tensors, *span, item.kv_head, begin, end, partial);
      if (partial != nullptr) partial += RowsOfPart(*span, range, item.part, group) * head_dim;
    }
  });
  if (partial_floats > 0) AddPartialDq(tensors, ranges, kv_heads, partial_dq, pool);
  return absl::OkStatus();
}

}  // namespace

void AttentionForward(TensorView q, TensorView k, TensorView v,
                      const std::vector<AttentionSpan>& spans, float scale, TensorView out,
                      TensorView lse, Stream& stream) {
  cpu::AttentionForwardTensors tensors;
  tensors.shape = CheckInputs(q, k, v, scale, InputType(stream));
  CheckHeads(out, q.dim(0), q.dim(1), q.dim(2));
  CheckPerHead(lse, q.dim(0), q.dim(1));
  CheckSpans(spans, q.dim(0), k.dim(0));
  LONGSPAN_RUN_ON_CUDA(stream, AttentionForward(q, k, v, spans, scale, out, lse, stream));
  tensors.q = RowsOf<const float>(q);
  tensors.k = RowsOf<const float>(k);
  tensors.v = RowsOf<const float>(v);
  tensors.out = RowsOf<float>(out);
  tensors.lse = RowsOf<float>(lse);
  stream.Launch("attention_forward", [=, kv_heads = k.dim(1), pool = &stream.device().threads()] {
    RunForward(tensors, spans, kv_heads, *pool);
  });
}

void AttentionBackward(TensorView q, TensorView k, TensorView v, TensorView dout, TensorView lse,
                       TensorView delta, const std::vector<AttentionSpan>& spans, float scale,
                       TensorView dq, TensorView dk, TensorView dv, Stream& stream) {
  cpu::AttentionBackwardTensors tensors;
  tensors.shape = CheckInputs(q, k, v, scale, InputType(stream));
  CheckHeads(dout, q.dim(0), q.dim(1), q.dim(2), InputType(stream));
  CheckHeads(dq, q.dim(0), q.dim(1), q.dim(2));
  CheckHeads(dk, k.dim(0), k.dim(1), k.dim(2));
  CheckHeads(dv, k.dim(0), k.dim(1), k.dim(2));
  CheckPerHead(lse, q.dim(0), q.dim(1));
  CheckPerHead(delta, q.dim(0), q.dim(1));
  CheckSpans(spans, q.dim(0), k.dim(0));
  GroupByKeys(spans);  // for its check, here in the caller's call stack
  LONGSPAN_RUN_ON_CUDA(
      stream, AttentionBackward(q, k, v, dout, lse, delta, spans, scale, dq, dk, dv, stream));
  tensors.q = RowsOf<const float>(q);
  tensors.k = RowsOf<const float>(k);
  tensors.v = RowsOf<const float>(v);
  tensors.dout = RowsOf<const float>(dout);
  tensors.lse = RowsOf<const float>(lse);
  tensors.delta = RowsOf<const float>(delta);
  tensors.dq = RowsOf<float>(dq);
  tensors.dk = RowsOf<float>(dk);
  tensors.dv = RowsOf<float>(dv);
  stream.LaunchFallible("attention_backward", [=, kv_heads = k.dim(1), device = &stream.device()] {
    return RunBackward(tensors, spans, kv_heads, *device);
  });
}

}  // namespace longspan
