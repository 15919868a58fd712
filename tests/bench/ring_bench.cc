// Attention over ranks, forward and backward of one layer: our ring on the plan of `skyline`,
// beside other ways to share the same documents. Ranks are threads of this program with one thread
// each; what they would send is counted, at 2, 4 and 8 ranks; seconds are measured at 2.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gathered_attention.h"
#include "kernels/attention.h"
#include "launch/command_line.h"
#include "parallel/length_mix.h"
#include "parallel/planner.h"
#include "parallel/ring_traffic.h"
#include "parallel/transport/rank_threads.h"

namespace longspan {
namespace {

struct Shape {
  int heads = 8, kv_heads = 2, head_dim = 64;
  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
};

enum class Executor { kRing, kGathered };

struct Method {
  std::string name;
  Executor executor = Executor::kRing;
  AttentionOptions options;
  StepPlan plan;
};

// Every document shared by all ranks, as a static context-parallel mesh does; micro-batches are
// filled in the order of the batch. `padded`: to multiples of 2 * ranks. `heads`: so many ranks
// split them.
StepPlan StaticPlan(std::vector<int64_t> lengths, int ranks, int64_t capacity, bool padded,
                    int heads = 1) {
  StepPlan plan;
  plan.ranks = ranks;
  plan.micro_batch_tokens = capacity;
  plan.micro_batches.resize(ranks);
  std::vector<int> all(ranks);
  std::iota(all.begin(), all.end(), 0);
  std::vector<int64_t> left(ranks, 0);
  for (size_t s = 0; s < lengths.size(); ++s) {
    if (padded) lengths[s] = (lengths[s] + 2 * ranks - 1) / (2 * ranks) * (2 * ranks);
    plan.groups.push_back({static_cast<int64_t>(s), all, heads});
    std::vector<TokenRanges> shares;
    bool fits = true;
    for (int rank = 0; rank < ranks; ++rank) {
      shares.push_back(ZigzagSliceRanges(lengths[s], ranks, rank));
      int64_t tokens = 0;
      for (const TokenRange& range : shares.back()) tokens += range.size();
      fits = fits && tokens <= left[rank];
      left[rank] -= tokens;
    }
    for (int rank = 0; rank < ranks; ++rank) {
      if (!fits) {
        plan.micro_batches[rank].emplace_back();
        left[rank] = capacity;
        for (const TokenRange& range : shares[rank]) left[rank] -= range.size();
      }
      plan.micro_batches[rank].back().slices.push_back(
          {static_cast<int64_t>(s), static_cast<int64_t>(s), shares[rank]});
    }
  }
  plan.lengths = std::move(lengths);
  return plan;
}

int64_t BytesOf(const Method& method, const Shape& shape) {
  if (method.executor == Executor::kRing) {
    const std::vector<int64_t> bytes =
        RingBytesByRank(method.plan, method.options, {shape.heads, shape.kv_heads, shape.head_dim});
    return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
  }
  int64_t bytes = 0;
  for (int rank = 0; rank < method.plan.ranks; ++rank) {
    for (const MicroBatch& micro_batch : method.plan.micro_batches[rank]) {
      const std::optional<RingLayout> ring = RingOf(method.plan, rank, micro_batch);
      if (ring.has_value()) bytes += GatheredBytes(*ring, shape.kv_width());
    }
  }
  return bytes;
}

std::vector<float> RandomValues(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// One rank's tensors, large enough for every micro-batch.
struct Tensors {
  Tensors(int64_t rows, const Shape& s)
      : q(RandomValues(rows * s.heads * s.head_dim, 1)),
        dout(RandomValues(q.size(), 2)),
        out(q.size()),
        dq(q.size()),
        k(RandomValues(rows * s.kv_heads * s.head_dim, 3)),
        v(RandomValues(k.size(), 4)),
        dk(k.size()),
        dv(k.size()),
        lse(rows * s.heads),
        delta(lse.size()),
        shape(s) {}
  void ZeroResults() {
    for (std::vector<float>* x : {&out, &dq, &dk, &dv}) std::fill(x->begin(), x->end(), 0.0f);
  }
  std::vector<float> Results() const {
    std::vector<float> all;
    for (const std::vector<float>* x : {&out, &dq, &dk, &dv}) {
      all.insert(all.end(), x->begin(), x->end());
    }
    return all;
  }
  TensorView Queries(std::vector<float>& x, int64_t rows) const {
    return TensorView::Of(x.data(), {rows, shape.heads, shape.head_dim});
  }
  TensorView Keys(std::vector<float>& x, int64_t rows) const {
    return TensorView::Of(x.data(), {rows, shape.kv_heads, shape.head_dim});
  }
  std::vector<float> q, dout, out, dq, k, v, dk, dv, lse, delta;
  Shape shape;
};

absl::Status RunMicroBatch(const Method& method, const MicroBatch& micro_batch, Tensors& t,
                           Transport& transport, Stream& stream, RingWorkspace& workspace) {
  const std::optional<RingLayout> ring = RingOf(method.plan, transport.rank(), micro_batch);
  std::vector<AttentionSpan> whole;
  int64_t rows = ring.has_value() ? ring->rows() : 0;
  for (const SequenceSlice& slice : InRowOrder(micro_batch)) {
    if (slice.group >= 0) continue;
    const int64_t length = method.plan.lengths[slice.sequence];
    whole.push_back({rows, length, rows, length, /*causal=*/true});
    rows += length;
  }
  const float scale = 0.125f;
  const TensorView q = t.Queries(t.q, rows), k = t.Keys(t.k, rows), v = t.Keys(t.v, rows),
                   out = t.Queries(t.out, rows), dout = t.Queries(t.dout, rows),
                   dq = t.Queries(t.dq, rows), dk = t.Keys(t.dk, rows), dv = t.Keys(t.dv, rows),
                   lse = TensorView::Of(t.lse.data(), {rows, t.shape.heads}),
                   delta = TensorView::Of(t.delta.data(), {rows, t.shape.heads});
  absl::Status status;
  if (!ring.has_value()) {
    AttentionForward(q, k, v, whole, scale, out, lse, stream);
  } else if (method.executor == Executor::kRing) {
    status = RingAttentionForward(*ring, whole, method.options, q, k, v, scale, out, lse, transport,
                                  stream, &workspace);
  } else {
    status = GatheredAttentionForward(*ring, whole, q, k, v, scale, out, lse, transport, stream,
                                      workspace);
  }
  if (!status.ok()) return status;
  if (rows > 0) AttentionDelta(out, dout, delta, stream);
  if (!ring.has_value()) {
    AttentionBackward(q, k, v, dout, lse, delta, whole, scale, dq, dk, dv, stream);
  } else if (method.executor == Executor::kRing) {
    status = RingAttentionBackward(*ring, whole, method.options, q, k, v, dout, lse, delta, scale,
                                   dq, dk, dv, transport, stream, &workspace);
  } else {
    status = GatheredAttentionBackward(*ring, whole, q, k, v, dout, lse, delta, scale, dq, dk, dv,
                                       transport, stream, workspace);
  }
  return status;
}

double RelativeError(const std::vector<float>& got, const std::vector<float>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - expected[i], 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(difference / norm);
}

double Quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

// Seconds of each method in each round, all methods in turns.
absl::StatusOr<std::vector<std::vector<double>>> Measure(const std::vector<Method>& methods,
                                                         const Shape& shape, int ranks,
                                                         int64_t rows, int rounds) {
  std::vector<std::vector<double>> seconds(methods.size());
  const absl::Status status =
      RunRanks(ranks, [&](Transport& transport, Device& device) -> absl::Status {
        Tensors tensors(rows, shape);
        RingWorkspace workspace;
        Stream stream = device.CreateStream("bench");
        std::vector<float> ring_results;
        for (int round = -1; round < rounds; ++round) {  // the first warms up
          for (size_t i = 0; i < methods.size(); ++i) {
            tensors.ZeroResults();
            if (absl::Status met = transport.Barrier(); !met.ok()) return met;
            const auto begin = std::chrono::steady_clock::now();
            const int64_t sent_before = transport.exchanged_bytes();
            for (const MicroBatch& micro_batch : methods[i].plan.micro_batches[transport.rank()]) {
              absl::Status queued =
                  RunMicroBatch(methods[i], micro_batch, tensors, transport, stream, workspace);
              if (!queued.ok()) return queued;
            }
            if (absl::Status done = stream.Synchronize(); !done.ok()) return done;
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
            const int64_t sent = transport.exchanged_bytes() - sent_before;
            if (round < 0 && i == 0) ring_results = tensors.Results();
            if (round < 0 && methods[i].executor == Executor::kGathered) {
              // The same plan as the first method's.
              const double error = RelativeError(tensors.Results(), ring_results);
              if (!(error < 1e-5)) {
                return absl::InternalError(
                    absl::StrCat(methods[i].name, " differs from the ring by ", error));
              }
            }
            absl::StatusOr<std::vector<std::string>> all =
                transport.AllGatherBytes(absl::StrCat(sent));
            if (!all.ok()) return all.status();
            int64_t total = 0;
            for (const std::string& each : *all) total += std::stoll(each);
            if (total != BytesOf(methods[i], shape)) {
              return absl::InternalError(absl::StrCat(methods[i].name, " sent ", total,
                                                      " bytes, not the ",
                                                      BytesOf(methods[i], shape), " expected"));
            }
            if (transport.rank() == 0 && round >= 0) seconds[i].push_back(took.count());
          }
          if (transport.rank() == 0) std::fprintf(stderr, "\rround %d of %d", round + 1, rounds);
        }
        if (transport.rank() == 0) std::fprintf(stderr, "\n");
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return seconds;
}

absl::StatusOr<std::vector<Method>> MethodsOf(const std::vector<int64_t>& lengths, int ranks,
                                              int64_t capacity) {
  PlanRequest request{lengths, ranks, capacity,
                      AnalyticCostModel(10'000'000, 8, 512, 128, 5e10, 5e9)};
  absl::StatusOr<StepPlan> plan = (*CreatePlanner("skyline"))->Plan(request);
  if (!plan.ok()) return plan.status();
  return std::vector<Method>{
      {"ring, skyline", Executor::kRing, {}, *plan},
      {"ring, skyline, bf16 wire", Executor::kRing, {DType::kBF16}, *plan},
      {"all-gather of KV, skyline", Executor::kGathered, {}, *plan},
      {"ring over all ranks", Executor::kRing, {}, StaticPlan(lengths, ranks, capacity, false)},
      {"the same, padded to 2d", Executor::kRing, {}, StaticPlan(lengths, ranks, capacity, true)},
      {"ring over all, heads by 2",
       Executor::kRing,
       {},
       StaticPlan(lengths, ranks, capacity, false, 2)}};
}

int Run(int64_t tokens, int64_t longest, int64_t capacity, int rounds) {
  const Shape shape;
  const absl::StatusOr<std::vector<int64_t>> lengths = DrawLengths({"code", tokens, longest, 1});
  if (!lengths.ok()) {
    std::cerr << lengths.status() << "\n";
    return 1;
  }
  const int64_t total = std::accumulate(lengths->begin(), lengths->end(), int64_t{0});
  std::printf(
      "%zu documents of the code mix, %lld tokens, longest %lld; %d heads, %d KV heads of %d\n",
      lengths->size(), static_cast<long long>(total),
      static_cast<long long>(*std::max_element(lengths->begin(), lengths->end())), shape.heads,
      shape.kv_heads, shape.head_dim);
  std::printf("\nMiB sent over all ranks, one layer forward and backward\n%-28s", "");
  for (const int ranks : {2, 4, 8}) std::printf("%10d ranks", ranks);
  std::printf("\n");
  std::vector<std::vector<Method>> by_ranks;
  for (const int ranks : {2, 4, 8}) {
    absl::StatusOr<std::vector<Method>> methods = MethodsOf(*lengths, ranks, capacity);
    if (!methods.ok()) {
      std::cerr << methods.status() << "\n";
      return 1;
    }
    by_ranks.push_back(*std::move(methods));
  }
  for (size_t i = 0; i < by_ranks[0].size(); ++i) {
    std::printf("%-28s", by_ranks[0][i].name.c_str());
    for (const std::vector<Method>& methods : by_ranks) {
      std::printf("%16.1f", static_cast<double>(BytesOf(methods[i], shape)) / (1 << 20));
    }
    std::printf("\n");
  }
  if (rounds == 0) return 0;
  const auto seconds = Measure(by_ranks[0], shape, 2, capacity + 64, rounds);
  if (!seconds.ok()) {
    std::cerr << seconds.status() << "\n";
    return 1;
  }
  std::printf("\n2 ranks, medians of %d rounds (quartiles); ratio to the first within a round\n",
              rounds);
  for (size_t i = 0; i < seconds->size(); ++i) {
    std::vector<double> ratios;
    for (size_t r = 0; r < (*seconds)[i].size(); ++r) {
      ratios.push_back((*seconds)[i][r] / (*seconds)[0][r]);
    }
    std::printf("%-28s %9.0f tokens/s   time %.3f (%.3f to %.3f)\n", by_ranks[0][i].name.c_str(),
                static_cast<double>(total) / Quantile((*seconds)[i], 0.5), Quantile(ratios, 0.5),
                Quantile(ratios, 0.25), Quantile(ratios, 0.75));
  }
  return 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) {
  longspan::CommandLine app(
      "Ring attention beside other ways to share documents: bytes and seconds.\n"
      "Example: ring_bench --tokens 65536 --rounds 9",
      "ring_bench");
  int64_t tokens = 65536, longest = 16384, capacity = 8192;
  int rounds = 9;
  app.AddOption("--tokens", tokens, "of the batch").ShowDefault();
  app.AddOption("--longest", longest, "longest document; longer ones are cut").ShowDefault();
  app.AddOption("--micro-batch-tokens", capacity, "capacity of a rank; even").ShowDefault();
  app.AddOption("--rounds", rounds, "measured rounds; 0: bytes alone").ShowDefault();
  if (const std::optional<int> ended = app.Parse(argc, argv)) return *ended;
  return longspan::Run(tokens, longest, capacity, rounds);
}
