// Attention on a GPU: plans of cuDNN, and the rows around them.
//
// Not yet run on a GPU: the plans are made and checked for a described one, the rest is compiled.
#include "kernels/attention.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention_batches.h"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/call.h"
#include "kernels/cuda/cudnn_session.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/operators.h"
#include "kernels/device/check.h"

namespace longspan::cuda {
namespace {

using Pass = AttentionGraphShape::Pass;

// The workspace that a deterministic backward pass may take.
constexpr int64_t kScoreBytes = int64_t{1} << 30;

template <typename T>
HeadsView<T> HeadsOf(const TensorView& x) {
  return {static_cast<T*>(x.raw()), x.stride(0)};
}

template <typename T>
PerHeadView<T> PerHeadOf(const TensorView& x) {
  return {static_cast<T*>(x.raw()), x.stride(0)};
}

// Whether a graph can use x where it lies: contiguous, at the alignment that all graphs promise.
bool FitsGraphs(const TensorView& x) {
  return x.contiguous() && reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0;
}

TensorView PackedLike(const TensorView& x, void* memory) {
  return x.rank() == 2 ? TensorView(memory, x.dtype(), {x.dim(0), x.dim(1)})
                       : TensorView(memory, x.dtype(), {x.dim(0), x.dim(1), x.dim(2)});
}

// x itself, or a copy of it that fits.
void* Packed(const TensorView& x, Call& call) {
  if (FitsGraphs(x) || !call.ok()) return x.raw();
  char* const copy = call.Allocate<char>(x.bytes());
  if (copy != nullptr) {
    call.Update(CopyRowsOf(x, PackedLike(x, copy), call.native()),
                "the packing of attention's operands");
  }
  return copy;
}

// After Packed gave `packed` for a result: back to where it belongs.
void Unpack(void* packed, const TensorView& x, Call& call) {
  if (!call.ok() || packed == x.raw()) return;
  call.Update(CopyRowsOf(PackedLike(x, packed), x, call.native()), "the results of attention");
}

// What every run of a plan binds, of either pass.
struct Operands {
  void* q;
  void* k;
  void* v;
  int64_t heads, kv_heads, head_dim;
  float scale;
};

struct RunTensors {
  std::vector<CudnnPlan::Binding> bindings;
  float scale, one = 1, minus_infinity = -std::numeric_limits<float>::infinity();
  int32_t window;
};

// Bindings of the documents and of the scalars; `run` must stay where it is until it has run.
void BindDocuments(const AttentionBatch& batch, const Operands& operands, const AttentionPlan& plan,
                   Call& call, RunTensors& run) {
  const int64_t query_width = operands.heads * operands.head_dim;
  const int64_t key_width = operands.kv_heads * operands.head_dim;
  // Four lists of offsets and four of counts, each at a place that is aligned.
  const size_t count = batch.documents.size();
  const size_t list = (count + 2) / 2 * 2, counts_list = (count + 3) / 4 * 4;
  std::vector<int64_t> words(4 * list);
  std::vector<int32_t> counts(4 * counts_list);
  int64_t keys = 0;
  for (size_t i = 0; i < count; ++i) {
    const AttentionDocument& document = batch.documents[i];
    const int64_t key_rows = batch.KeyRows(document);
    LONGSPAN_CHECK(document.query_count > 0 && document.key_count > 0 &&
                       !GivesNan(document.query_count) && !GivesNan(key_rows),
                   "cuDNN does not serve documents of this length");
    words[i] = document.query_begin * query_width;
    words[list + i] = (batch.pads_keys ? keys : document.key_begin) * key_width;
    words[2 * list + i] = document.query_begin * operands.heads;
    words[3 * list + i] = keys * query_width;
    counts[i] = static_cast<int32_t>(document.query_count);
    counts[counts_list + i] = static_cast<int32_t>(key_rows);
    counts[2 * counts_list + i] = static_cast<int32_t>(document.aligned_keys);
    counts[3 * counts_list + i] = static_cast<int32_t>(document.key_count);
    keys += key_rows;
  }
  // Where the last document ends.
  const AttentionDocument& last = batch.documents.back();
  words[count] = words[count - 1] + last.query_count * query_width;
  words[list + count] = words[list + count - 1] + batch.KeyRows(last) * key_width;
  words[2 * list + count] = words[2 * list + count - 1] + last.query_count * operands.heads;
  words[3 * list + count] = keys * query_width;
  int64_t* const offsets = call.Upload(words);
  int32_t* const lengths = call.Upload(counts);
  if (!call.ok()) return;

  run.scale = operands.scale;
  run.window = static_cast<int32_t>(batch.window);
  const AttentionPlan::Ids& ids = plan.ids;
  run.bindings = {{ids.q, operands.q},
                  {ids.k, operands.k},
                  {ids.v, operands.v},
                  {ids.query_offsets, offsets},
                  {ids.key_offsets, offsets + list},
                  {ids.stats_offsets, offsets + 2 * list},
                  {ids.query_counts, lengths},
                  {ids.key_counts, lengths + counts_list},
                  {ids.scale, &run.scale},
                  {ids.minus_infinity, &run.minus_infinity}};
  if (ids.window != 0) {
    run.bindings.push_back({ids.window, &run.window});
    run.bindings.push_back({ids.aligned_keys, lengths + 2 * counts_list});
  }
  if (ids.visible_keys != 0) run.bindings.push_back({ids.visible_keys, lengths + 3 * counts_list});
  if (plan.shape.pass == Pass::kBackward) {
    run.bindings.push_back({ids.gradient_offsets, offsets + 3 * list});
    run.bindings.push_back({ids.one, &run.one});
  }
}

// The operands for a batch: where it pads keys, keys and values are a copy of its documents', one
// behind the other.
Operands ForBatch(const Operands& operands, const AttentionBatch& batch, Call& call) {
  if (!batch.pads_keys) return operands;
  std::vector<RowRange> ranges;
  int64_t rows = 0, longest = 0;
  for (const AttentionDocument& document : batch.documents) {
    ranges.push_back({document.key_begin, rows, document.key_count});
    rows += batch.KeyRows(document);
    longest = std::max(longest, document.key_count);
  }
  const int64_t width = operands.kv_heads * operands.head_dim;
  const RowRange* const on_gpu = call.Upload(ranges);
  const auto copy = [&](const void* source) -> void* {
    auto* const target = call.Allocate<__nv_bfloat16>(rows * width);
    if (call.ok()) {
      call.Update(
          CopyPaddedRows(static_cast<const __nv_bfloat16*>(source), width, on_gpu,
                         static_cast<int64_t>(ranges.size()), longest, target, call.native()),
          "the padding of attention's keys");
    }
    return target;
  };
  Operands padded = operands;
  padded.k = copy(operands.k);
  padded.v = copy(operands.v);
  return padded;
}

void RunPlan(CudnnSession& session, const AttentionPlan& plan, const RunTensors& run, Call& call) {
  void* const workspace = call.Allocate<char>(plan.plan.workspace_bytes());
  if (!call.ok()) return;
  std::lock_guard lock(session.mutex);
  call.Update(session.library->Check(session.library->set_stream(session.handle, call.native()),
                                     "cudnnSetStream"));
  if (call.ok()) call.Update(plan.plan.Execute(session.handle, run.bindings, workspace));
}

// Ranges of a gradient's rows, in groups that share no row of the target.
struct GradientRanges {
  std::vector<std::vector<RowRange>> groups;
  int64_t longest = 0;
  int64_t rows = 0;  // of the source
};

GradientRanges KeyRanges(const AttentionBatch& batch) {
  GradientRanges ranges;
  std::map<int64_t, size_t> uses;  // of a first key: documents share all keys or none
  for (const AttentionDocument& document : batch.documents) {
    const size_t group = uses[document.key_begin]++;
    if (ranges.groups.size() <= group) ranges.groups.resize(group + 1);
    ranges.groups[group].push_back({ranges.rows, document.key_begin, document.key_count});
    ranges.rows += batch.KeyRows(document);
    ranges.longest = std::max(ranges.longest, document.key_count);
  }
  return ranges;
}

template <typename Source>
void AddRows(const Source* source, int64_t heads, int64_t group, const GradientRanges& ranges,
             const TensorView& target, Call& call) {
  for (const std::vector<RowRange>& rows : ranges.groups) {
    const RowRange* const on_gpu = call.Upload(rows);
    if (!call.ok()) return;
    call.Update(
        AddHeadRows(source, heads, group, target.dim(2), on_gpu, static_cast<int64_t>(rows.size()),
                    ranges.longest, HeadsOf<float>(target), call.native()),
        "the sum of attention's gradients");
  }
}

struct Prepared {
  CudnnSession* session = nullptr;
  AttentionBatches batches;
};

Prepared Prepare(const TensorView& q, const std::vector<AttentionSpan>& spans, int64_t score_bytes,
                 Stream& stream, Call& call) {
  Prepared prepared;
  if (q.dim(2) % 8 != 0) {
    call.Update(absl::UnimplementedError(absl::StrCat(
        "attention on a GPU needs a head_dim that is a multiple of 8, not ", q.dim(2))));
    return prepared;
  }
  prepared.batches = CutIntoBatches(spans, q.dim(1), score_bytes);
  if (prepared.batches.batches.empty()) return prepared;
  absl::StatusOr<CudnnSession*> session = CudaContext::Of(stream).Cudnn();
  call.Update(session.status());
  if (call.ok()) prepared.session = *session;
  return prepared;
}

}  // namespace

void AttentionForward(TensorView q, TensorView k, TensorView v,
                      const std::vector<AttentionSpan>& spans, float scale, TensorView out,
                      TensorView lse, Stream& stream) {
  Call call(stream);
  const Prepared prepared = Prepare(q, spans, 0, stream, call);
  if (!call.ok()) return;
  const int64_t heads = q.dim(1), head_dim = q.dim(2);
  // Rows outside of the spans come back as they are.
  float* const stats = static_cast<float*>(Packed(lse, call));
  float* const results = static_cast<float*>(Packed(out, call));
  if (!call.ok()) return;
  for (const AttentionDocument& rows : prepared.batches.without_keys) {
    call.Update(FillRowsWithoutKeys({results, heads * head_dim}, stats, rows.query_begin,
                                    rows.query_count, heads, head_dim, call.native()),
                "rows without keys");
  }
  const Operands operands{
      Packed(q, call), Packed(k, call), Packed(v, call), heads, k.dim(1), head_dim, scale};
  for (const AttentionBatch& batch : prepared.batches.batches) {
    if (!call.ok()) return;
    const auto plan = prepared.session->attention->PlanFor(
        ShapeOf(batch, Pass::kForward, heads, k.dim(1), head_dim, false));
    call.Update(plan.status());
    if (!call.ok()) return;
    const Call::Part part(call);
    RunTensors run;
    BindDocuments(batch, ForBatch(operands, batch, call), **plan, call, run);
    run.bindings.push_back({(*plan)->ids.out, results});
    run.bindings.push_back({(*plan)->ids.stats, stats});
    RunPlan(*prepared.session, **plan, run, call);
  }
  Unpack(stats, lse, call);
  Unpack(results, out, call);
}

void AttentionBackward(TensorView q, TensorView k, TensorView v, TensorView dout, TensorView lse,
                       TensorView delta, const std::vector<AttentionSpan>& spans, float scale,
                       TensorView dq, TensorView dk, TensorView dv, Stream& stream) {
  Call call(stream);
  const bool deterministic = stream.device().deterministic();
  const Prepared prepared = Prepare(q, spans, deterministic ? kScoreBytes : 0, stream, call);
  if (!call.ok() || prepared.batches.batches.empty()) return;
  const int64_t rows = q.dim(0), heads = q.dim(1), head_dim = q.dim(2), kv_heads = k.dim(1);
  const Operands operands{
      Packed(q, call), Packed(k, call), Packed(v, call), heads, kv_heads, head_dim, scale};
  void* const gradient = Packed(dout, call);
  void* const stats = Packed(lse, call);

  // cuDNN takes the output where it needs only delta. In a ring delta is what there is, so it gets
  // an output that leads to the same delta.
  float* const stand_in = call.Allocate<float>(rows * heads * head_dim);
  float* const delta_again = call.Allocate<float>(rows * heads);
  if (!call.ok()) return;
  call.Update(StandInForOutput({static_cast<const __nv_bfloat16*>(gradient), heads * head_dim},
                               static_cast<const float*>(Packed(delta, call)), rows, heads,
                               head_dim, stand_in, call.native()),
              "the stand-in for attention's output");

  const int64_t dq_bytes = rows * heads * head_dim * (deterministic ? 2 : 4);
  char* const dq_sum = call.Allocate<char>(dq_bytes);
  if (!call.ok()) return;
  if (!deterministic)
    call.Update(cudaMemsetAsync(dq_sum, 0, dq_bytes, call.native()), "dq of attention");

  GradientRanges queries;
  queries.groups.resize(1);
  for (const AttentionBatch& batch : prepared.batches.batches) {
    if (!call.ok()) return;
    const auto plan = prepared.session->attention->PlanFor(
        ShapeOf(batch, Pass::kBackward, heads, kv_heads, head_dim, deterministic));
    call.Update(plan.status());
    if (!call.ok()) return;
    const GradientRanges keys = KeyRanges(batch);
    // Given back before the next batch takes its own.
    const Call::Part part(call);
    float* const dk_all = call.Allocate<float>(keys.rows * heads * head_dim);
    float* const dv_all = call.Allocate<float>(keys.rows * heads * head_dim);
    RunTensors run;
    BindDocuments(batch, ForBatch(operands, batch, call), **plan, call, run);
    if (!call.ok()) return;
    const AttentionPlan::Ids& ids = (*plan)->ids;
    run.bindings.insert(run.bindings.end(), {{ids.out, stand_in},
                                             {ids.stats, stats},
                                             {ids.dout, gradient},
                                             {ids.delta, delta_again},
                                             {ids.dq, dq_sum},
                                             {ids.dk, dk_all},
                                             {ids.dv, dv_all}});
    RunPlan(*prepared.session, **plan, run, call);
    AddRows(dk_all, kv_heads, heads / kv_heads, keys, dk, call);
    AddRows(dv_all, kv_heads, heads / kv_heads, keys, dv, call);
    if (!call.ok()) return;
    for (const AttentionDocument& document : batch.documents) {
      queries.groups[0].push_back(
          {document.query_begin, document.query_begin, document.query_count});
      queries.longest = std::max(queries.longest, document.query_count);
    }
  }
  if (deterministic) {
    AddRows(reinterpret_cast<const __nv_bfloat16*>(dq_sum), heads, 1, queries, dq, call);
  } else {
    AddRows(reinterpret_cast<const float*>(dq_sum), heads, 1, queries, dq, call);
  }
}

void MergeAttention(TensorView block_out, TensorView block_lse, TensorView out, TensorView lse,
                    Stream& stream) {
  Report(MergeAttentionRows(HeadsOf<const float>(block_out), PerHeadOf<const float>(block_lse),
                            out.dim(0), out.dim(1), out.dim(2), HeadsOf<float>(out),
                            PerHeadOf<float>(lse), Native(stream)),
         "merge_attention", stream);
}

void AttentionDelta(TensorView out, TensorView dout, TensorView delta, Stream& stream) {
  const int64_t rows = out.dim(0), heads = out.dim(1), head_dim = out.dim(2);
  const cudaError_t error =
      dout.dtype() == DType::kBF16
          ? AttentionDeltaRows(HeadsOf<const float>(out), HeadsOf<const __nv_bfloat16>(dout), rows,
                               heads, head_dim, PerHeadOf<float>(delta), Native(stream))
          : AttentionDeltaRows(HeadsOf<const float>(out), HeadsOf<const float>(dout), rows, heads,
                               head_dim, PerHeadOf<float>(delta), Native(stream));
  Report(error, "attention_delta", stream);
}

}  // namespace longspan::cuda
