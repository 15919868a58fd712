// HostPool: a bounded amount of host memory in equal chunks, for bytes on their way to storage.
//
// Equal chunks and a free list, so any chunk may come back at any time; no ring that has to tell
// "full" from "empty". Who needs a chunk while none is free waits: that is the back-pressure.
#ifndef LONGSPAN_CHECKPOINT_HOST_POOL_H_
#define LONGSPAN_CHECKPOINT_HOST_POOL_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"

namespace longspan {

// Thread-safe.
class HostPool {
 public:
  // `chunks` >= 1 of `chunk_bytes`, a multiple of kStorageAlignment, each aligned to that, in
  // `table` under "checkpoint pool". ResourceExhausted if there is no such memory. `table` outlives
  // the pool.
  static absl::StatusOr<std::unique_ptr<HostPool>> Create(MemoryTable& table, int64_t chunks,
                                                          int64_t chunk_bytes);
  // A check fails if a chunk is still out: somebody could write to it later.
  ~HostPool();

  // Blocks until a chunk is free.
  char* Take();
  // nullptr if none is free.
  char* TryTake();
  // `chunk` came from Take and was not given back since; a check fails otherwise.
  void Give(char* chunk);

  int64_t chunks() const { return static_cast<int64_t>(taken_.size()); }
  int64_t chunk_bytes() const { return chunk_bytes_; }
  // All of the pool's memory, for FileSystem::RegisterMemory.
  const char* memory() const { return memory_; }
  int64_t bytes() const { return chunks() * chunk_bytes_; }
  int64_t out() const;  // chunks taken now
  // Seconds that Take has waited so far, over all callers.
  double waited_seconds() const;

 private:
  HostPool(Buffer buffer, int64_t chunks, int64_t chunk_bytes);
  char* TakeFree();  // needs the mutex held and a free chunk

  const Buffer buffer_;
  char* const memory_;
  const int64_t chunk_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<int64_t> free_;  // the chunk that came back last is taken first: it is in the caches
  std::vector<bool> taken_;
  double waited_seconds_ = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_HOST_POOL_H_
