// attention_bench: attention alone, driven line by line as train_bench is (gpu.py).
//
// Reads commands from standard input and answers each with one line of JSON on standard output:
//   causal LENGTH DOCUMENTS HEADS KV_HEADS HEAD_DIM COUNT
//   full   LENGTH DOCUMENTS HEADS KV_HEADS HEAD_DIM COUNT   every query sees every key: a ring step
//   gemm   N COUNT                                          COUNT products of two N x N matrices
// with the seconds of one forward and of one backward pass, means of COUNT. On a GPU operands are
// bf16, outputs f32, as in training.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench_device.h"
#include "kernels/attention.h"
#include "launch/command_line.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

struct Shape {
  int64_t length = 0, documents = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t rows() const { return length * documents; }
};

// Seconds of one of `count` calls, after one that makes plans and caches.
absl::StatusOr<double> SecondsOf(const std::function<void()>& work, int64_t count, Stream& stream) {
  work();
  if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
  const Clock::time_point begin = Clock::now();
  for (int64_t i = 0; i < count; ++i) work();
  if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
  return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(count);
}

absl::StatusOr<std::string> Attention(const Shape& shape, bool causal, int64_t count,
                                      Device& device, Stream& stream) {
  const DType compute = ComputeDType(device);
  std::vector<BenchTensor> owned;
  const auto make = [&](int64_t columns, DType dtype) -> absl::StatusOr<TensorView> {
    absl::StatusOr<BenchTensor> tensor =
        BenchTensor::Random(dtype, shape.rows(), columns, device, stream);
    if (!tensor.ok()) return tensor.status();
    owned.push_back(*std::move(tensor));
    return owned.back().view();
  };
  struct Operand {
    int64_t heads;
    DType dtype;
    TensorView view = {};
  };
  Operand q{shape.heads, compute}, k{shape.kv_heads, compute},
      v = k, dout = q, out{shape.heads, DType::kF32}, dq = out, dk{shape.kv_heads, DType::kF32},
      dv = dk;
  for (Operand* operand : {&q, &k, &v, &dout, &out, &dq, &dk, &dv}) {
    const absl::StatusOr<TensorView> view = make(operand->heads * shape.head_dim, operand->dtype);
    if (!view.ok()) return view.status();
    operand->view = view->Reshape({shape.rows(), operand->heads, shape.head_dim});
  }
  const absl::StatusOr<TensorView> lse = make(shape.heads, DType::kF32),
                                   delta = make(shape.heads, DType::kF32);
  for (const auto* view : {&lse, &delta}) {
    if (!view->ok()) return view->status();
  }
  std::vector<AttentionSpan> spans;
  for (int64_t d = 0; d < shape.documents; ++d) {
    const int64_t begin = d * shape.length;
    spans.push_back({begin, shape.length, begin, shape.length, causal});
  }
  const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  const absl::StatusOr<double> forward = SecondsOf(
      [&] { AttentionForward(q.view, k.view, v.view, spans, scale, out.view, *lse, stream); },
      count, stream);
  if (!forward.ok()) return forward.status();
  const absl::StatusOr<double> backward = SecondsOf(
      [&] {
        AttentionDelta(out.view, dout.view, *delta, stream);
        AttentionBackward(q.view, k.view, v.view, dout.view, *lse, *delta, spans, scale, dq.view,
                          dk.view, dv.view, stream);
      },
      count, stream);
  if (!backward.ok()) return backward.status();
  return absl::StrFormat("{\"forward_seconds\": %.9f, \"backward_seconds\": %.9f}", *forward,
                         *backward);
}

absl::StatusOr<std::string> Products(int64_t size, int64_t count, Device& device, Stream& stream) {
  const absl::StatusOr<BenchProducts> products = BenchProducts::Create(size, device, stream);
  if (!products.ok()) return products.status();
  const Clock::time_point begin = Clock::now();
  products->Launch(count, stream);
  if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
  return ProductsJson(std::chrono::duration<double>(Clock::now() - begin).count(),
                      products->flops(count));
}

absl::StatusOr<std::string> Answer(const std::string& line, Device& device, Stream& stream) {
  std::istringstream words(line);
  std::string name;
  words >> name;
  int64_t count = 0;
  if (name == "gemm") {
    int64_t size = 0;
    if (words >> size >> count && size > 0 && count > 0)
      return Products(size, count, device, stream);
  } else if (name == "causal" || name == "full") {
    Shape s;
    if (words >> s.length >> s.documents >> s.heads >> s.kv_heads >> s.head_dim >> count &&
        s.length > 0 && s.documents > 0 && s.kv_heads > 0 && s.heads % s.kv_heads == 0 &&
        s.head_dim > 0 && count > 0)
      return Attention(s, name == "causal", count, device, stream);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", line,
                   "' is not a command; there are: causal|full LENGTH DOCUMENTS HEADS KV_HEADS "
                   "HEAD_DIM COUNT, gemm N COUNT"));
}

int Main(int argc, char** argv) {
  std::string device_name = "cpu";
  CommandLine app("Attention alone; commands come from standard input.", "attention_bench");
  AddDeviceOption(app, device_name);
  if (const std::optional<int> ended = app.Parse(argc, argv)) return *ended;
  const auto fail = [](const absl::Status& status) {
    std::fprintf(stderr, "attention_bench: %s\n", std::string(status.message()).c_str());
    return 1;
  };
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenBenchDevice(device_name, static_cast<int>(std::thread::hardware_concurrency()));
  if (!device.ok()) return fail(device.status());
  Stream stream = (*device)->CreateStream("compute");
  std::string line;
  while (std::getline(std::cin, line)) {
    const absl::StatusOr<std::string> answer = Answer(line, **device, stream);
    if (!answer.ok()) return fail(answer.status());
    std::printf("%s\n", answer->c_str());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::Main(argc, argv); }
