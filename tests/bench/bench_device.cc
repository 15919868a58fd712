#include "bench_device.h"

#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/device/cuda_device.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace longspan {

void AddDeviceOption(const Command& app, std::string& name) {
  app.AddOption("--device", name, "cpu, or cuda: the first GPU").OneOf({"cpu", "cuda"});
}

absl::StatusOr<std::unique_ptr<Device>> OpenBenchDevice(const std::string& name, int threads) {
  if (name == "cuda") return OpenCuda(0, threads);
  return Device::OpenCpu(threads);
}

DType ComputeDType(const Device& device) {
  return device.kind() == DeviceKind::kCuda ? DType::kBF16 : DType::kF32;
}

absl::StatusOr<BenchTensor> BenchTensor::Random(DType dtype, int64_t rows, int64_t columns,
                                                Device& device, Stream& stream) {
  std::vector<float> values(rows * columns);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& value : values) value = normal(random);
  BenchTensor exact, rounded;
  for (BenchTensor* tensor : {&exact, &rounded}) {
    const DType type = tensor == &exact ? DType::kF32 : dtype;
    absl::StatusOr<Buffer> buffer = Buffer::Allocate(device.memory(), rows * columns * SizeOf(type),
                                                     "bench", Placement::kDevice);
    if (!buffer.ok()) return buffer.status();
    tensor->buffer_ = *std::move(buffer);
    tensor->view_ = tensor->buffer_.Tensor(type, {rows, columns});
  }
  absl::Status status = device.CopyNow(values.data(), exact.buffer_.data(), exact.buffer_.bytes());
  if (!status.ok()) return status;
  Convert(exact.view_, rounded.view_, stream);
  status = stream.Synchronize();
  if (!status.ok()) return status;
  return rounded;
}

absl::StatusOr<BenchProducts> BenchProducts::Create(int64_t size, Device& device, Stream& stream) {
  BenchProducts products;
  products.size_ = size;
  for (int k = 0; k < 3; ++k) {
    absl::StatusOr<BenchTensor> matrix =
        BenchTensor::Random(ComputeDType(device), size, size, device, stream);
    if (!matrix.ok()) return matrix.status();
    products.matrices_.push_back(*std::move(matrix));
  }
  products.Launch(1, stream);
  if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
  return products;
}

void BenchProducts::Launch(int64_t count, Stream& stream) const {
  for (int64_t i = 0; i < count; ++i) {
    Gemm(Transpose::kNo, Transpose::kNo, 1, matrices_[0].view(), matrices_[1].view(), 0,
         matrices_[2].view(), stream);
  }
}

double BenchProducts::flops(int64_t count) const {
  const double n = static_cast<double>(size_);
  return 2 * n * n * n * static_cast<double>(count);
}

std::string ProductsJson(double seconds, double flops) {
  return absl::StrFormat("{\"seconds\": %.9f, \"flops\": %.0f}", seconds, flops);
}

}  // namespace longspan
