// What the benchmarks driven line by line share about devices: opening one by its name, tensors of
// random values there, and the rate of its matrix products.
#ifndef LONGSPAN_TESTS_BENCH_BENCH_DEVICE_H_
#define LONGSPAN_TESTS_BENCH_BENCH_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "launch/command_line.h"

namespace longspan {

// --device cpu|cuda.
void AddDeviceOption(const Command& app, std::string& name);

// `threads` of the host.
absl::StatusOr<std::unique_ptr<Device>> OpenBenchDevice(const std::string& name, int threads);

// What operands of products and attention are there: f32 on the CPU, bf16 on a GPU.
DType ComputeDType(const Device& device);

// Owns a tensor on a device, under the tag "bench".
class BenchTensor {
 public:
  // f32 or bf16 of shape (rows, columns), normal values, rounded where the type asks for it.
  static absl::StatusOr<BenchTensor> Random(DType dtype, int64_t rows, int64_t columns,
                                            Device& device, Stream& stream);
  TensorView view() const { return view_; }

 private:
  Buffer buffer_;
  TensorView view_;
};

// Products of square matrices in the device's compute type: what the peak is measured with.
class BenchProducts {
 public:
  // Of `size` x `size`; one product is done when it returns, so that an algorithm has been chosen.
  static absl::StatusOr<BenchProducts> Create(int64_t size, Device& device, Stream& stream);
  int64_t size() const { return size_; }
  void Launch(int64_t count, Stream& stream) const;
  double flops(int64_t count) const;

 private:
  int64_t size_ = 0;
  std::vector<BenchTensor> matrices_;
};

// {"seconds": s, "flops": n}
std::string ProductsJson(double seconds, double flops);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_BENCH_BENCH_DEVICE_H_
