// Buffer: owns memory of a device or of its host, under a tag. MemoryTable: what is allocated, by
// tag.
//
// Every allocation of size in Longspan is a Buffer, so one table tells where a rank's memory went.
#ifndef LONGSPAN_KERNELS_DEVICE_MEMORY_H_
#define LONGSPAN_KERNELS_DEVICE_MEMORY_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Where a buffer lies. On the CPU back end all three are ordinary memory. On a GPU kernels touch
// kDevice alone; copies between it and kPinnedHost do not stop the host, kHost is ordinary memory.
enum class Placement { kDevice, kHost, kPinnedHost };

// What a device hands out its memory from. Thread-safe.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  // `bytes` >= 1, aligned to 64; not initialised. nullptr where there is none.
  virtual void* Allocate(int64_t bytes, Placement placement) = 0;
  // No work that is queued anywhere uses the memory any more.
  virtual void Free(void* memory, Placement placement) = 0;
  // Done when it returns.
  virtual absl::Status Zero(void* memory, int64_t bytes, Placement placement) = 0;
  // For messages about memory that could not be had, such as "the GPU has 12 of 4096 bytes left"
  // (other processes may hold the rest), or why that cannot be told; empty where the source does
  // not know.
  virtual std::string WhatIsLeft(Placement) { return ""; }
};

// Bytes of one rank by tag, and where they come from. Thread-safe.
class MemoryTable {
 public:
  // Ordinary memory for every placement.
  MemoryTable();
  // From `source`, which must outlive the table.
  explicit MemoryTable(MemorySource& source) : source_(source) {}
  struct Row {
    std::string tag;
    int64_t current_bytes = 0;
    int64_t peak_bytes = 0;
  };
  void Add(const std::string& tag, int64_t bytes);
  void Remove(const std::string& tag, int64_t bytes);
  // Sorted by peak, largest first.
  std::vector<Row> Rows() const;
  int64_t current_bytes() const;
  int64_t peak_bytes() const;
  MemorySource& source() const { return source_; }

 private:
  MemorySource& source_;
  mutable std::mutex mutex_;
  std::vector<Row> rows_;
  int64_t current_bytes_ = 0;
  int64_t peak_bytes_ = 0;
};

// Move-only owner of 64-byte aligned memory. Must not outlive the MemoryTable it was allocated
// under.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  // Memory is not initialised. ResourceExhausted when there is none, with tag, size, and what is
  // left where the source knows it. `tag` is
  // a short lower-case noun such as "activations".
  static absl::StatusOr<Buffer> Allocate(MemoryTable& table, int64_t bytes, const std::string& tag,
                                         Placement placement = Placement::kHost);
  // The same, filled with zeros.
  static absl::StatusOr<Buffer> AllocateZeroed(MemoryTable& table, int64_t bytes,
                                               const std::string& tag,
                                               Placement placement = Placement::kHost);

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // A contiguous view from byte `offset` on. A check fails if it does not fit.
  TensorView Tensor(DType dtype, std::initializer_list<int64_t> shape, int64_t offset = 0) const;

 private:
  void Free();
  MemoryTable* table_ = nullptr;
  std::string tag_;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Placement placement_ = Placement::kHost;
};

// Resident set size of this process, and its peak, in bytes (/proc/self/status).
int64_t ResidentBytes();
int64_t PeakResidentBytes();

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_MEMORY_H_
