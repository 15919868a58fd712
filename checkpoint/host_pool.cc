#include "checkpoint/host_pool.h"

#include <chrono>
#include <utility>

#include "checkpoint/storage.h"
#include "kernels/device/check.h"

namespace longspan {
namespace {

char* AlignUp(void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  const auto unit = static_cast<uintptr_t>(kStorageAlignment);
  return static_cast<char*>(data) + ((address + unit - 1) / unit * unit - address);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostPool>> HostPool::Create(MemoryTable& table, int64_t chunks,
                                                           int64_t chunk_bytes) {
  LONGSPAN_CHECK(
      chunks >= 1 && chunk_bytes >= kStorageAlignment && chunk_bytes % kStorageAlignment == 0,
      "a pool has aligned chunks");
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(table, chunks * chunk_bytes + kStorageAlignment,
                                                   "checkpoint pool", Placement::kPinnedHost);
  if (!buffer.ok()) return buffer.status();
  return std::unique_ptr<HostPool>(new HostPool(*std::move(buffer), chunks, chunk_bytes));
}

HostPool::HostPool(Buffer buffer, int64_t chunks, int64_t chunk_bytes)
    : buffer_(std::move(buffer)),
      memory_(AlignUp(buffer_.data())),
      chunk_bytes_(chunk_bytes),
      taken_(chunks, false) {
  for (int64_t chunk = chunks; chunk > 0; --chunk) free_.push_back(chunk - 1);
}

HostPool::~HostPool() { LONGSPAN_CHECK(out() == 0, "every chunk is back before the pool goes"); }

char* HostPool::TakeFree() {
  const int64_t chunk = free_.back();
  free_.pop_back();
  taken_[chunk] = true;
  return memory_ + chunk * chunk_bytes_;
}

char* HostPool::Take() {
  std::unique_lock lock(mutex_);
  if (free_.empty()) {
    const auto begin = std::chrono::steady_clock::now();
    freed_.wait(lock, [&] { return !free_.empty(); });
    waited_seconds_ +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  return TakeFree();
}

char* HostPool::TryTake() {
  const std::lock_guard lock(mutex_);
  return free_.empty() ? nullptr : TakeFree();
}

void HostPool::Give(char* chunk) {
  const std::lock_guard lock(mutex_);
  const int64_t offset = chunk - memory_;
  const int64_t index = offset / chunk_bytes_;
  LONGSPAN_CHECK(offset >= 0 && offset % chunk_bytes_ == 0 && index < chunks() && taken_[index],
                 "a chunk that is out comes back once");
  taken_[index] = false;
  free_.push_back(index);
  // Under the lock: whoever is woken may destroy the pool.
  freed_.notify_one();
}

int64_t HostPool::out() const {
  const std::lock_guard lock(mutex_);
  return chunks() - static_cast<int64_t>(free_.size());
}

double HostPool::waited_seconds() const {
  const std::lock_guard lock(mutex_);
  return waited_seconds_;
}

}  // namespace longspan
