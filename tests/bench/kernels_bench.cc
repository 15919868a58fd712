// kernels_bench: seconds and FLOP/s (or bytes/s) of single operators, at the shapes of the
// benchmark's model: 4096 rows, width 384, 6 heads of 64, FFN 1024, vocabulary 4096. --threads=N
// sets the device's threads (default: all); other options are Google Benchmark's.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/device/check.h"
#include "kernels/device/stream.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/normalization.h"
#include "kernels/optimizer_pass.h"
#include "kernels/rope.h"

namespace longspan {
namespace {

constexpr int64_t kRows = 4096, kWidth = 384, kHeads = 6, kHead = 64, kFfn = 1024,
                  kVocabulary = 4096;
constexpr int64_t kParameters =
    6 * (4 * kWidth * kWidth + 3 * kWidth * kFfn) + 2 * kVocabulary * kWidth;
constexpr double kGemmRows = static_cast<double>(kRows);

// A tensor that owns its memory, filled with values in [-scale, scale).
class Tensor {
 public:
  Tensor(Device& device, std::initializer_list<int64_t> shape, float scale = 1) {
    int64_t elements = 1;
    for (int64_t extent : shape) elements *= extent;
    absl::StatusOr<Buffer> buffer =
        Buffer::Allocate(device.memory(), elements * SizeOf(DType::kF32), "benchmark");
    LONGSPAN_CHECK(buffer.ok(), "no memory for a benchmark's tensor");
    buffer_ = *std::move(buffer);
    view_ = buffer_.Tensor(DType::kF32, shape);
    uint32_t state = 1;
    for (int64_t i = 0; i < elements; ++i) {
      state = state * 1664525u + 1013904223u;
      view_.data<float>()[i] = scale * (static_cast<float>(state >> 8) * 0x1p-23f - 1);
    }
  }
  TensorView view() const { return view_; }

 private:
  Buffer buffer_;
  TensorView view_;
};

// What an iteration does, for rates.
struct Work {
  double flops = 0;
  double bytes = 0;  // read and written once
};

void Measure(benchmark::State& state, Stream& stream, Work work,
             const std::function<void()>& queue) {
  for (auto _ : state) {
    queue();
    const absl::Status status = stream.Synchronize();
    if (!status.ok()) {
      state.SkipWithError(std::string(status.message()).c_str());
      return;
    }
  }
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  if (work.flops > 0) state.counters["FLOP/s"] = benchmark::Counter(work.flops, rate);
  if (work.bytes > 0) state.counters["bytes/s"] = benchmark::Counter(work.bytes, rate);
}

struct GemmShape {
  const char* name;
  Transpose a, b;
  int64_t m, n, k;
  float beta;
};

// Forward: x W^T. d input: dy W. d weight: dy^T x, accumulated.
std::vector<GemmShape> GemmShapes() {
  std::vector<GemmShape> shapes = {
      {"square_2048", Transpose::kNo, Transpose::kNo, 2048, 2048, 2048, 0}};
  struct Linear {
    const char *forward, *dinput, *dweight;
    int64_t out, in, rows;
  };
  // The head's rows are one chunk of the fused cross-entropy.
  const int64_t chunk = std::min(kRows, CrossEntropyChunkRows(kVocabulary));
  const Linear linears[] = {
      {"qkv_forward", "qkv_dinput", "qkv_dweight", 3 * kWidth, kWidth, kRows},
      {"out_forward", "out_dinput", "out_dweight", kWidth, kWidth, kRows},
      {"ffn_in_forward", "ffn_in_dinput", "ffn_in_dweight", 2 * kFfn, kWidth, kRows},
      {"ffn_out_forward", "ffn_out_dinput", "ffn_out_dweight", kWidth, kFfn, kRows},
      {"head_forward", "head_dinput", "head_dweight", kVocabulary, kWidth, chunk}};
  for (const Linear& l : linears) {
    shapes.push_back({l.forward, Transpose::kNo, Transpose::kYes, l.rows, l.out, l.in, 0});
    shapes.push_back({l.dinput, Transpose::kNo, Transpose::kNo, l.rows, l.in, l.out, 0});
    shapes.push_back({l.dweight, Transpose::kYes, Transpose::kNo, l.out, l.in, l.rows, 1});
  }
  return shapes;
}

void MeasureGemm(benchmark::State& state, Device& device, const GemmShape& s) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor a = s.a == Transpose::kNo ? Tensor(device, {s.m, s.k}) : Tensor(device, {s.k, s.m});
  const Tensor b = s.b == Transpose::kNo ? Tensor(device, {s.k, s.n}) : Tensor(device, {s.n, s.k});
  const Tensor c(device, {s.m, s.n});
  const double flops =
      2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  Measure(state, stream, {flops, 0},
          [&] { Gemm(s.a, s.b, 1, a.view(), b.view(), s.beta, c.view(), stream); });
}

// Documents of `length` tokens, 4096 rows in all. FLOP count: causal, without what is computed
// again.
void MeasureAttention(benchmark::State& state, Device& device, int64_t length, bool backward) {
  Stream stream = device.CreateStream("benchmark");
  // Queries, keys and values side by side, as in the model.
  const Tensor qkv(device, {kRows, 3 * kWidth}), dqkv(device, {kRows, 3 * kWidth});
  const Tensor out(device, {kRows, kHeads, kHead}), dout(device, {kRows, kHeads, kHead});
  const Tensor lse(device, {kRows, kHeads}), delta(device, {kRows, kHeads});
  const auto part = [](const Tensor& all, int64_t index) {
    return all.view()
        .Slice(1, index * kWidth, (index + 1) * kWidth)
        .Reshape({kRows, kHeads, kHead});
  };
  std::vector<AttentionSpan> spans;
  for (int64_t begin = 0; begin < kRows; begin += length)
    spans.push_back({begin, length, begin, length, /*causal=*/true});
  const float scale = 0.125f;
  const auto forward = [&] {
    AttentionForward(part(qkv, 0), part(qkv, 1), part(qkv, 2), spans, scale, out.view(), lse.view(),
                     stream);
  };
  const double flops_of_product = static_cast<double>(length) * static_cast<double>(length) *
                                  static_cast<double>(kWidth) * static_cast<double>(kRows / length);
  if (!backward) {
    Measure(state, stream, {2 * flops_of_product, 0}, forward);
    return;
  }
  forward();
  AttentionDelta(out.view(), dout.view(), delta.view(), stream);
  Measure(state, stream, {4 * flops_of_product, 0}, [&] {
    AttentionBackward(part(qkv, 0), part(qkv, 1), part(qkv, 2), dout.view(), lse.view(),
                      delta.view(), spans, scale, part(dqkv, 0), part(dqkv, 1), part(dqkv, 2),
                      stream);
  });
}

double Bytes(int64_t elements) { return static_cast<double>(elements * SizeOf(DType::kF32)); }

std::vector<int32_t> Ids() {
  std::vector<int32_t> ids(kRows);
  for (int64_t i = 0; i < kRows; ++i)
    ids[i] = static_cast<int32_t>((i * 2654435761 >> 7) % kVocabulary);
  return ids;
}

void MeasureSwiGlu(benchmark::State& state, Device& device, bool backward) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor gate_up(device, {kRows, 2 * kFfn}), dgate_up(device, {kRows, 2 * kFfn}),
      y(device, {kRows, kFfn});
  if (backward) {
    Measure(state, stream, {0, Bytes(5 * kRows * kFfn)},
            [&] { SwiGluBackward(y.view(), gate_up.view(), dgate_up.view(), stream); });
  } else {
    Measure(state, stream, {0, Bytes(3 * kRows * kFfn)},
            [&] { SwiGluForward(gate_up.view(), y.view(), stream); });
  }
}

void MeasureRmsNorm(benchmark::State& state, Device& device, bool backward) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor x(device, {kRows, kWidth}), y(device, {kRows, kWidth}), dx(device, {kRows, kWidth});
  const Tensor weight(device, {kWidth}), dweight(device, {kWidth}), rstd(device, {kRows});
  if (backward) {
    Measure(state, stream, {0, Bytes(4 * kRows * kWidth)}, [&] {
      RmsNormBackward(y.view(), x.view(), weight.view(), rstd.view(), dx.view(), dweight.view(),
                      stream);
    });
  } else {
    Measure(state, stream, {0, Bytes(2 * kRows * kWidth)},
            [&] { RmsNormForward(x.view(), weight.view(), 1e-5f, y.view(), rstd.view(), stream); });
  }
}

void MeasureRope(benchmark::State& state, Device& device) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor qk(device, {kRows, 2 * kHeads, kHead});
  std::vector<int32_t> positions(kRows);
  for (int64_t i = 0; i < kRows; ++i) positions[i] = static_cast<int32_t>(i);
  Measure(state, stream, {0, Bytes(4 * kRows * kWidth)}, [&] {
    RopeForward(qk.view(), TensorView::Of(positions.data(), {kRows}), 10000.0, stream);
  });
}

// With its three products: logits, d hidden, d weight.
void MeasureCrossEntropy(benchmark::State& state, Device& device) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor hidden(device, {kRows, kWidth}), dhidden(device, {kRows, kWidth}),
      losses(device, {kRows});
  const Tensor weight(device, {kVocabulary, kWidth}, 0.02f), dweight(device, {kVocabulary, kWidth});
  const Tensor workspace(device, {CrossEntropyChunkRows(kVocabulary), kVocabulary});
  std::vector<int32_t> targets = Ids();
  Measure(state, stream, {6 * kGemmRows * static_cast<double>(kWidth * kVocabulary), 0}, [&] {
    LinearCrossEntropy(hidden.view(), weight.view(), TensorView::Of(targets.data(), {kRows}),
                       losses.view(), dhidden.view(), dweight.view(), workspace.view(), stream);
  });
}

void MeasureEmbedding(benchmark::State& state, Device& device, bool backward) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor table(device, {kVocabulary, kWidth}), rows(device, {kRows, kWidth});
  std::vector<int32_t> ids = Ids();
  const TensorView ids_view = TensorView::Of(ids.data(), {kRows});
  if (backward) {
    Measure(state, stream, {0, Bytes(3 * kRows * kWidth)},
            [&] { EmbeddingBackward(ids_view, rows.view(), table.view(), stream); });
  } else {
    Measure(state, stream, {0, Bytes(2 * kRows * kWidth)}, [&] {
      EmbeddingForward(ids_view, table.view(), /*accumulate=*/false, rows.view(), stream);
    });
  }
}

void MeasureAdamW(benchmark::State& state, Device& device, bool sums) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor gradient(device, {kParameters}), parameter(device, {kParameters});
  const Tensor first(device, {kParameters}), second(device, {kParameters});
  Zero(first.view(), stream);
  Zero(second.view(), stream);
  AdamWParameters step;
  step.rate = 1e-4;
  std::vector<uint64_t> written(3);
  WrittenSums target;
  if (sums) target.sums = TensorView::Of(written.data(), {3});
  Measure(state, stream, {0, Bytes(7 * kParameters)}, [&] {
    AdamWUpdate(step, gradient.view(), parameter.view(), first.view(), second.view(), stream,
                TensorView(), target);
    ++step.step;
  });
}

void MeasureGradientStatistics(benchmark::State& state, Device& device) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor gradient(device, {kParameters});
  std::vector<double> statistics(3);
  Measure(state, stream, {0, Bytes(kParameters)}, [&] {
    AccumulateGradientStatistics(gradient.view(), TensorView::Of(statistics.data(), {3}), stream);
  });
}

void MeasureCopy(benchmark::State& state, Device& device) {
  Stream stream = device.CreateStream("benchmark");
  const Tensor x(device, {kRows, kWidth}), y(device, {kRows, kWidth});
  Measure(state, stream, {0, Bytes(2 * kRows * kWidth)}, [&] { Copy(x.view(), y.view(), stream); });
}

void RegisterAll(Device& device) {
  const auto add = [](const std::string& name, const std::function<void(benchmark::State&)>& body) {
    benchmark::RegisterBenchmark(name.c_str(), body)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (const GemmShape& shape : GemmShapes())
    add(std::string("gemm/") + shape.name,
        [&device, shape](auto& s) { MeasureGemm(s, device, shape); });
  for (int64_t length : {512, 4096}) {
    add("attention/forward/" + std::to_string(length),
        [&device, length](auto& s) { MeasureAttention(s, device, length, false); });
    add("attention/backward/" + std::to_string(length),
        [&device, length](auto& s) { MeasureAttention(s, device, length, true); });
  }
  for (bool backward : {false, true}) {
    const std::string direction = backward ? "backward" : "forward";
    add("swiglu/" + direction,
        [&device, backward](auto& s) { MeasureSwiGlu(s, device, backward); });
    add("rmsnorm/" + direction,
        [&device, backward](auto& s) { MeasureRmsNorm(s, device, backward); });
    add("embedding/" + direction,
        [&device, backward](auto& s) { MeasureEmbedding(s, device, backward); });
  }
  add("rope", [&device](auto& s) { MeasureRope(s, device); });
  add("cross_entropy", [&device](auto& s) { MeasureCrossEntropy(s, device); });
  add("adamw", [&device](auto& s) { MeasureAdamW(s, device, /*sums=*/false); });
  add("adamw_sums", [&device](auto& s) { MeasureAdamW(s, device, /*sums=*/true); });
  add("gradient_statistics", [&device](auto& s) { MeasureGradientStatistics(s, device); });
  add("copy", [&device](auto& s) { MeasureCopy(s, device); });
}

int Main(int argc, char** argv) {
  int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("--threads=", 0) == 0) {
      threads = std::atoi(argument.c_str() + 10);
    } else {
      rest.push_back(argv[i]);
    }
  }
  if (threads < 1) {
    std::fprintf(stderr, "kernels_bench: --threads wants a positive number\n");
    return 2;
  }
  int count = static_cast<int>(rest.size());
  const std::unique_ptr<Device> device = Device::OpenCpu(threads);
  RegisterAll(*device);
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;
  benchmark::AddCustomContext("device", device->description());
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::Main(argc, argv); }
