// Device memory of one test, filled from and read back to host memory.
#ifndef LONGSPAN_TESTS_GPU_DEVICE_MEMORY_H_
#define LONGSPAN_TESTS_GPU_DEVICE_MEMORY_H_

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace longspan {

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes) : bytes_(bytes) {
    EXPECT_EQ(cudaMalloc(&data_, bytes_), cudaSuccess);
  }
  ~DeviceMemory() { (void)cudaFree(data_); }
  DeviceMemory(DeviceMemory&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr;
  }
  DeviceMemory& operator=(DeviceMemory&&) = delete;

  template <typename T>
  static DeviceMemory Of(const std::vector<T>& values) {
    DeviceMemory memory(values.size() * sizeof(T));
    EXPECT_EQ(cudaMemcpy(memory.data_, values.data(), memory.bytes_, cudaMemcpyHostToDevice),
              cudaSuccess);
    return memory;
  }
  template <typename T>
  void CopyTo(std::vector<T>& values) const {
    ASSERT_EQ(values.size() * sizeof(T), bytes_);
    ASSERT_EQ(cudaMemcpy(values.data(), data_, bytes_, cudaMemcpyDeviceToHost), cudaSuccess);
  }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_GPU_DEVICE_MEMORY_H_
