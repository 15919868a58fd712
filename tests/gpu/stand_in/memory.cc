#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace longspan::stand_in {
namespace {

constexpr size_t kGuard = 256;  // bytes on each side, and the alignment
constexpr unsigned char kGuardByte = 0xa5;
constexpr unsigned char kFreshByte = 0xff;    // NaN as f32, f64 and bf16
constexpr unsigned char kRetiredByte = 0xf7;  // a large negative number
constexpr size_t kMostRetired = size_t{64} << 20;

// Of larger allocations only so much at both ends is filled, and they are not watched once freed:
// otherwise a workspace of half a gigabyte would take most of a test's time.
constexpr size_t kMostFilled = size_t{16} << 20;

bool AllAre(const char* at, size_t bytes, unsigned char value) {
  return bytes == 0 ||
         (static_cast<unsigned char>(at[0]) == value && std::memcmp(at, at + 1, bytes - 1) == 0);
}

void Fill(char* at, size_t bytes, unsigned char value) {
  const size_t end = std::min(bytes, kMostFilled / 2);
  std::memset(at, value, bytes <= kMostFilled ? bytes : end);
  std::memset(at + bytes - end, value, end);
}

}  // namespace

size_t DeviceBytes() {
  static const size_t bytes = [] {
    const char* const text = std::getenv("LONGSPAN_STAND_IN_MEMORY");
    return text == nullptr ? size_t{4} << 30 : std::strtoull(text, nullptr, 10);
  }();
  return bytes;
}

Memory& Memory::Get() {
  static Memory& memory = *new Memory;  // streams of other static objects may outlive it
  return memory;
}

void* Memory::Allocate(MemoryKind kind, int device, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (kind == MemoryKind::kDevice) {
    if (used_[device] + bytes > DeviceBytes()) return nullptr;
    used_[device] += bytes;
    most_used_ = std::max(most_used_, used_[device]);
  }
  const size_t padded = (bytes + kGuard - 1) / kGuard * kGuard;
  char* const base = static_cast<char*>(std::aligned_alloc(kGuard, padded + 2 * kGuard));
  if (base == nullptr) return nullptr;
  char* const at = base + kGuard;
  std::memset(base, kGuardByte, kGuard);
  Fill(at, bytes, kFreshByte);
  std::memset(at + bytes, kGuardByte, padded - bytes + kGuard);
  live_[at] = {kind, device, bytes, base, next_++};
  return at;
}

bool Memory::TakeBack(void* at, MemoryKind kind) {
  std::lock_guard lock(mutex_);
  const auto found = live_.find(static_cast<char*>(at));
  if (found == live_.end() || found->second.kind != kind || found->second.base == nullptr ||
      found->second.taken_back) {
    return false;
  }
  found->second.taken_back = true;
  return true;
}

void Memory::Release(void* at) {
  std::lock_guard lock(mutex_);
  const auto found = live_.find(static_cast<char*>(at));
  const Allocation allocation = found->second;
  live_.erase(found);
  if (allocation.kind == MemoryKind::kDevice) used_[allocation.device] -= allocation.bytes;
  Retire(allocation, static_cast<char*>(at));
}

void Memory::CheckAround(const Allocation& allocation, const char* at) {
  const size_t padded = (allocation.bytes + kGuard - 1) / kGuard * kGuard;
  const bool before = AllAre(allocation.base, kGuard, kGuardByte);
  const bool behind = AllAre(at + allocation.bytes, padded - allocation.bytes + kGuard, kGuardByte);
  if (before && behind) return;
  faults_ += std::string("written ") + (before ? "behind" : "in front of") + " allocation " +
             std::to_string(allocation.number) + " of " + std::to_string(allocation.bytes) +
             " bytes\n";
}

void Memory::Retire(const Allocation& allocation, char* at) {
  CheckAround(allocation, at);
  Fill(at, allocation.bytes, kRetiredByte);
  if (allocation.bytes > kMostFilled) {
    std::free(allocation.base);
    return;
  }
  retired_.push_back({allocation.base, at, allocation.bytes, allocation.number});
  retired_bytes_ += allocation.bytes;
  while (retired_bytes_ > kMostRetired || retired_.size() > 10000) {
    const Retired& oldest = retired_.front();
    if (!AllAre(oldest.at, oldest.bytes, kRetiredByte))
      faults_ += "written after it was freed: allocation " + std::to_string(oldest.number) + "\n";
    std::free(oldest.base);
    retired_bytes_ -= oldest.bytes;
    retired_.pop_front();
  }
}

bool Memory::Register(void* at, size_t bytes) {
  std::lock_guard lock(mutex_);
  return live_
      .try_emplace(static_cast<char*>(at),
                   Allocation{MemoryKind::kPinned, -1, bytes, nullptr, next_++})
      .second;
}

bool Memory::Unregister(void* at) {
  std::lock_guard lock(mutex_);
  const auto found = live_.find(static_cast<char*>(at));
  if (found == live_.end() || found->second.base != nullptr) return false;
  live_.erase(found);
  return true;
}

bool Memory::Find(const void* at, size_t bytes, Place& place) {
  std::lock_guard lock(mutex_);
  char* const begin = static_cast<char*>(const_cast<void*>(at));
  auto found = live_.upper_bound(begin);
  if (found == live_.begin()) return false;
  --found;
  const Allocation& allocation = found->second;
  if (begin + bytes > found->first + allocation.bytes ||
      begin >= found->first + std::max<size_t>(1, allocation.bytes))
    return false;
  place = {allocation.kind, allocation.device, found->first, allocation.bytes};
  return true;
}

bool Memory::Touches(const void* at, size_t bytes) {
  std::lock_guard lock(mutex_);
  char* const begin = static_cast<char*>(const_cast<void*>(at));
  auto next = live_.lower_bound(begin + bytes);
  if (next == live_.begin()) return false;
  --next;
  return next->first + next->second.bytes > begin;
}

size_t Memory::used(int device) {
  std::lock_guard lock(mutex_);
  return used_[device];
}

size_t Memory::most_used() {
  std::lock_guard lock(mutex_);
  return most_used_;
}

std::string Memory::Faults() {
  std::lock_guard lock(mutex_);
  for (const Retired& retired : retired_) {
    if (!AllAre(retired.at, retired.bytes, kRetiredByte))
      faults_ += "written after it was freed: allocation " + std::to_string(retired.number) + "\n";
  }
  std::string left;
  for (const auto& [at, allocation] : live_) {
    if (allocation.base != nullptr) CheckAround(allocation, at);
    left += "not given back: allocation " + std::to_string(allocation.number) + " of " +
            std::to_string(allocation.bytes) + " bytes\n";
  }
  return faults_ + left;
}

void Memory::ClearFaults() {
  std::lock_guard lock(mutex_);
  faults_.clear();
  for (const Retired& retired : retired_) std::memset(retired.at, kRetiredByte, retired.bytes);
}

}  // namespace longspan::stand_in
