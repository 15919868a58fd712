// Memory of the stand-in: what is allocated, and what is written where it should not be.
#ifndef LONGSPAN_TESTS_GPU_STAND_IN_MEMORY_H_
#define LONGSPAN_TESTS_GPU_STAND_IN_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>

namespace longspan::stand_in {

enum class MemoryKind { kDevice, kPinned };

// Thread-safe.
class Memory {
 public:
  static Memory& Get();

  // nullptr when a device's memory is exhausted. Device memory holds NaN patterns at first.
  void* Allocate(MemoryKind kind, int device, size_t bytes);
  // Whether `at` was given. `later`: the memory still counts as taken back from now on, but its
  // contents stay until Release.
  bool TakeBack(void* at, MemoryKind kind);
  // The contents go, and are watched for later writes.
  void Release(void* at);

  // Host memory of the program that is pinned where it lies.
  bool Register(void* at, size_t bytes);
  bool Unregister(void* at);

  struct Place {
    MemoryKind kind;
    int device;
    char* begin;
    size_t bytes;
  };
  // Of the live allocation that [at, at + bytes) lies in.
  bool Find(const void* at, size_t bytes, Place& place);
  // Whether [at, at + bytes) touches a live allocation, or none at all.
  bool Touches(const void* at, size_t bytes);

  size_t used(int device);
  // The most that any device has had to give at a time.
  size_t most_used();
  std::string Faults();
  void ClearFaults();

 private:
  struct Allocation {
    MemoryKind kind;
    int device;
    size_t bytes;
    char* base;  // nullptr: registered, not ours
    int64_t number;
    bool taken_back = false;
  };
  void Retire(const Allocation& allocation, char* at);
  void CheckAround(const Allocation& allocation, const char* at);

  std::mutex mutex_;
  std::map<char*, Allocation> live_;
  struct Retired {
    char* base;
    char* at;
    size_t bytes;
    int64_t number;
  };
  std::deque<Retired> retired_;
  size_t retired_bytes_ = 0;
  std::map<int, size_t> used_;
  size_t most_used_ = 0;
  int64_t next_ = 1;
  std::string faults_;
};

// Of each device: LONGSPAN_STAND_IN_MEMORY in the environment, else 4 GiB.
size_t DeviceBytes();

}  // namespace longspan::stand_in

#endif  // LONGSPAN_TESTS_GPU_STAND_IN_MEMORY_H_
