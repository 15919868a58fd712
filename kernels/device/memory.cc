#include "kernels/device/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

constexpr int64_t kAlignment = 64;
// Where it is worth it, memory is of huge pages: fewer misses of the address translation, and fewer
// parts in what a disk or a network card reads and writes.
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kHugeFrom = 4 * kHugePage;

int64_t StatusField(const char* field) {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind(field, 0) == 0)
      return std::strtoll(line.c_str() + std::strlen(field), nullptr, 10) * 1024;
  }
  return 0;
}

class OrdinaryMemory : public MemorySource {
 public:
  void* Allocate(int64_t bytes, Placement) override {
    const int64_t unit = bytes >= kHugeFrom ? kHugePage : kAlignment;
    const auto size = static_cast<size_t>((bytes + unit - 1) / unit * unit);
    void* memory = std::aligned_alloc(static_cast<size_t>(unit), size);
    if (memory != nullptr && unit == kHugePage) madvise(memory, size, MADV_HUGEPAGE);  // a hint
    return memory;
  }
  void Free(void* memory, Placement) override { std::free(memory); }
  absl::Status Zero(void* memory, int64_t bytes, Placement) override {
    std::memset(memory, 0, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
};

// Without state, so that it may be shared and never ends.
MemorySource& Ordinary() {
  static OrdinaryMemory* const source = new OrdinaryMemory();
  return *source;
}

}  // namespace

MemoryTable::MemoryTable() : source_(Ordinary()) {}

void MemoryTable::Add(const std::string& tag, int64_t bytes) {
  std::lock_guard lock(mutex_);
  auto row = std::find_if(rows_.begin(), rows_.end(), [&](const Row& r) { return r.tag == tag; });
  if (row == rows_.end()) row = rows_.insert(rows_.end(), Row{tag, 0, 0});
  row->current_bytes += bytes;
  row->peak_bytes = std::max(row->peak_bytes, row->current_bytes);
  current_bytes_ += bytes;
  peak_bytes_ = std::max(peak_bytes_, current_bytes_);
}

void MemoryTable::Remove(const std::string& tag, int64_t bytes) {
  std::lock_guard lock(mutex_);
  for (Row& row : rows_) {
    if (row.tag == tag) row.current_bytes -= bytes;
  }
  current_bytes_ -= bytes;
}

std::vector<MemoryTable::Row> MemoryTable::Rows() const {
  std::lock_guard lock(mutex_);
  std::vector<Row> rows = rows_;
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.peak_bytes > b.peak_bytes; });
  return rows;
}

int64_t MemoryTable::current_bytes() const {
  std::lock_guard lock(mutex_);
  return current_bytes_;
}

int64_t MemoryTable::peak_bytes() const {
  std::lock_guard lock(mutex_);
  return peak_bytes_;
}

Buffer::~Buffer() { Free(); }

Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  Free();
  table_ = std::exchange(other.table_, nullptr);
  tag_ = std::move(other.tag_);
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  placement_ = other.placement_;
  return *this;
}

void Buffer::Free() {
  if (data_ == nullptr) return;
  table_->source().Free(data_, placement_);
  table_->Remove(tag_, bytes_);
  data_ = nullptr;
}

absl::StatusOr<Buffer> Buffer::Allocate(MemoryTable& table, int64_t bytes, const std::string& tag,
                                        Placement placement) {
  LONGSPAN_CHECK(bytes >= 0, "negative allocation");
  Buffer buffer;
  buffer.data_ = table.source().Allocate(std::max<int64_t>(bytes, 1), placement);
  if (buffer.data_ == nullptr) {
    const std::string left = table.source().WhatIsLeft(placement);
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", bytes, " bytes of ", tag, left.empty() ? "" : ": ", left,
                     "; this rank already holds ", table.current_bytes(), " bytes"));
  }
  buffer.table_ = &table;
  buffer.tag_ = tag;
  buffer.bytes_ = bytes;
  buffer.placement_ = placement;
  table.Add(tag, bytes);
  return buffer;
}

absl::StatusOr<Buffer> Buffer::AllocateZeroed(MemoryTable& table, int64_t bytes,
                                              const std::string& tag, Placement placement) {
  absl::StatusOr<Buffer> buffer = Allocate(table, bytes, tag, placement);
  if (!buffer.ok() || bytes == 0) return buffer;
  if (absl::Status status = table.source().Zero(buffer->data_, bytes, placement); !status.ok()) {
    return status;
  }
  return buffer;
}

TensorView Buffer::Tensor(DType dtype, std::initializer_list<int64_t> shape, int64_t offset) const {
  TensorView view(static_cast<char*>(data_) + offset, dtype, shape);
  LONGSPAN_CHECK(offset >= 0 && offset + view.bytes() <= bytes_, "tensor does not fit its buffer");
  return view;
}

int64_t ResidentBytes() { return StatusField("VmRSS:"); }

int64_t PeakResidentBytes() { return StatusField("VmHWM:"); }

}  // namespace longspan
