// A stand-in for libnccl: the functions that parallel/transport calls, between threads and between
// processes of one machine, through shared memory. Like the library it keeps one order a
// communicator, runs a group at its end, refuses two ranks on one GPU, needs both sides of a
// message, and waits for a rank that never comes until the communicator is aborted; sizes that
// differ are errors here. LONGSPAN_STAND_IN_NCCL_VERSION in the environment, such as 21000: the
// version that it pretends to be.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <nccl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

extern "C" int LongspanStandInEnqueue(cudaStream_t stream, void (*work)(void*), void* data);

namespace {

constexpr size_t kChunkBytes = 64 << 10;
constexpr int kMostRanks = 64;

// What ranks share lies in memory of the system, mapped by each of them, and holds zeros at first.
template <typename T>
T Load(T& word) {
  return std::atomic_ref<T>(word).load(std::memory_order_acquire);
}
template <typename T>
void Store(T& word, T value) {
  std::atomic_ref<T>(word).store(value, std::memory_order_release);
}

// The way from one rank to another holds one piece of a message at a time.
struct Channel {
  uint32_t full;  // whose turn it is: the sender's at 0
  uint32_t piece_bytes;
  uint64_t message_bytes;  // of the message that the piece is of
  char piece[kChunkBytes];
};

struct Shared {
  int32_t joined;
  uint32_t failed;
  int32_t devices[kMostRanks];
  // Behind it a channel for each pair: [source][destination].
};

void Pause() { std::this_thread::sleep_for(std::chrono::microseconds(20)); }

// One rank's view of the communicator.
class World {
 public:
  // Maps the memory of that name, as all other ranks do; nullptr where that fails.
  static std::shared_ptr<World> Join(const char* name, int ranks, int rank, int device) {
    const size_t bytes = sizeof(Shared) + sizeof(Channel) * ranks * ranks;
    const int file = shm_open(name, O_RDWR | O_CREAT, 0600);
    if (file < 0) return nullptr;
    void* memory = MAP_FAILED;
    if (ftruncate(file, static_cast<off_t>(bytes)) == 0)
      memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return nullptr;
    auto world = std::shared_ptr<World>(new World(memory, bytes, ranks, rank));
    Store(world->shared_->devices[rank], device);
    // The last one to come takes the name away: the memory goes with its mappings.
    std::atomic_ref<int32_t> joined(world->shared_->joined);
    if (joined.fetch_add(1) + 1 == ranks) shm_unlink(name);
    while (joined.load() < ranks) Pause();
    return world;
  }
  ~World() { munmap(shared_, bytes_); }

  int ranks() const { return ranks_; }
  int rank() const { return rank_; }
  bool failed() const { return Load(shared_->failed) != 0; }
  // By this rank; others are to be aborted themselves.
  bool aborted() const { return aborted_; }
  void Abort() { aborted_ = true; }
  bool OneGpuARank() const {
    const std::set<int32_t> distinct(shared_->devices, shared_->devices + ranks_);
    return static_cast<int>(distinct.size()) == ranks_;
  }

  struct Side {
    bool send;
    char* memory;
    size_t bytes;
    int peer;
    size_t done = 0;
  };

  // Returns when all of it has been sent and received; false when sizes differ anywhere, a kernel
  // of this rank has gone wrong, or it is aborted. Messages between two ranks go in their order.
  bool Transfer(std::vector<Side> sides) {
    while (!failed() && !aborted() && cudaPeekAtLastError() != cudaErrorIllegalAddress) {
      bool moved = false, all_done = true;
      std::set<std::pair<bool, int>> busy;
      for (Side& side : sides) {
        if (side.done == side.bytes) continue;
        all_done = false;
        if (busy.insert({side.send, side.peer}).second) moved |= Move(side);
      }
      if (all_done) return true;
      if (!moved) Pause();
    }
    return false;
  }

 private:
  World(void* memory, size_t bytes, int ranks, int rank)
      : shared_(static_cast<Shared*>(memory)), bytes_(bytes), ranks_(ranks), rank_(rank) {}

  // The next piece, if it is this side's turn.
  bool Move(Side& side) {
    const int from = side.send ? rank_ : side.peer, to = side.send ? side.peer : rank_;
    Channel& channel = reinterpret_cast<Channel*>(shared_ + 1)[from * ranks_ + to];
    if (Load(channel.full) != (side.send ? 0u : 1u)) return false;
    if (side.send) {
      channel.message_bytes = side.bytes;
      channel.piece_bytes = static_cast<uint32_t>(std::min(kChunkBytes, side.bytes - side.done));
      std::memcpy(channel.piece, side.memory + side.done, channel.piece_bytes);
    } else if (channel.message_bytes != side.bytes) {
      Store(shared_->failed, 1u);
      return false;
    } else {
      std::memcpy(side.memory + side.done, channel.piece, channel.piece_bytes);
    }
    side.done += channel.piece_bytes;
    Store(channel.full, side.send ? 1u : 0u);
    return true;
  }

  Shared* const shared_;
  const size_t bytes_;
  const int ranks_, rank_;
  std::atomic<bool> aborted_{false};
};

// What tests ask for, of every communicator.
std::atomic<int> error_to_report{ncclSuccess};
std::atomic<bool> calls_hang{false};

size_t SizeOf(ncclDataType_t type) {
  return type == ncclFloat64    ? 8
         : type == ncclFloat32  ? 4
         : type == ncclBfloat16 ? 2
         : type == ncclUint8    ? 1
                                : 0;
}

void Enqueue(cudaStream_t stream, std::function<void()> work) {
  LongspanStandInEnqueue(
      stream,
      [](void* data) {
        const std::unique_ptr<std::function<void()>> held(
            static_cast<std::function<void()>*>(data));
        (*held)();
      },
      new std::function<void()>(std::move(work)));
}

struct Group {
  int depth = 0;
  cudaStream_t stream = nullptr;
  ncclComm* communicator = nullptr;
  std::vector<World::Side> sides;
};
thread_local Group group;

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  cudaEvent_t last = nullptr;  // operations of a communicator run one after the other
};

namespace {

// Where calls hang: until the communicator is aborted.
ncclResult_t Return(ncclComm* communicator) {
  if (!calls_hang) return ncclSuccess;
  const std::shared_ptr<World> world = communicator->world;
  while (!world->aborted()) Pause();
  return ncclInternalError;
}

// Before and after each operation: the order of the communicator, whatever streams it is used on.
void InOrder(ncclComm* communicator, cudaStream_t stream, std::function<void()> work) {
  (void)cudaStreamWaitEvent(stream, communicator->last, 0);
  Enqueue(stream, std::move(work));
  (void)cudaEventRecord(communicator->last, stream);
}

// What every rank has in its part for this one, by rank: `part(p)` is what this rank has for p.
// Nothing where that cannot be had any more.
std::vector<std::vector<char>> Swap(World& world, size_t bytes,
                                    const std::function<const char*(int peer)>& part) {
  std::vector<std::vector<char>> parts(world.ranks(), std::vector<char>(bytes));
  std::vector<World::Side> sides;
  for (int peer = 0; peer < world.ranks(); ++peer) {
    if (peer == world.rank()) {
      std::memcpy(parts[peer].data(), part(peer), bytes);
      continue;
    }
    sides.push_back({true, const_cast<char*>(part(peer)), bytes, peer});
    sides.push_back({false, parts[peer].data(), bytes, peer});
  }
  if (!world.Transfer(std::move(sides))) parts.clear();
  return parts;
}

template <typename T>
void AddTo(char* sum, const std::vector<char>& values) {
  for (size_t i = 0; i < values.size() / sizeof(T); ++i) {
    reinterpret_cast<T*>(sum)[i] += reinterpret_cast<const T*>(values.data())[i];
  }
}

// Every addition rounds, as between the ranks of a ring.
void AddBf16To(char* sum, const std::vector<char>& values) {
  const auto value = [](uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); };
  for (size_t i = 0; i < values.size() / sizeof(uint16_t); ++i) {
    uint16_t& held = reinterpret_cast<uint16_t*>(sum)[i];
    const auto bits = std::bit_cast<uint32_t>(
        value(held) + value(reinterpret_cast<const uint16_t*>(values.data())[i]));
    held = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}

// In the order of ranks.
void WriteSum(const std::vector<std::vector<char>>& parts, ncclDataType_t type, void* output) {
  if (parts.empty()) return;
  char* const sum = static_cast<char*>(output);
  std::memcpy(sum, parts[0].data(), parts[0].size());
  for (size_t rank = 1; rank < parts.size(); ++rank) {
    switch (type) {
      case ncclFloat32:
        AddTo<float>(sum, parts[rank]);
        break;
      case ncclBfloat16:
        AddBf16To(sum, parts[rank]);
        break;
      default:
        AddTo<double>(sum, parts[rank]);
    }
  }
}

ncclResult_t Add(bool send, void* memory, size_t count, ncclDataType_t type, int peer,
                 ncclComm_t communicator, cudaStream_t stream) {
  if (group.depth == 0 || SizeOf(type) == 0 || peer < 0 || peer >= communicator->world->ranks()) {
    return ncclInvalidUsage;
  }
  group.communicator = communicator;
  group.stream = stream;
  group.sides.push_back({send, static_cast<char*>(memory), count * SizeOf(type), peer});
  return ncclSuccess;
}

}  // namespace

extern "C" {

// For tests. What ncclCommGetAsyncError says from now on, ncclSuccess: what is so.
void LongspanStandInNcclError(int result) { error_to_report = result; }
// Calls that issue operations return only once their communicator is aborted.
void LongspanStandInNcclHang(int hang) { calls_hang = hang != 0; }

ncclResult_t ncclGetVersion(int* version) {
  const char* const told = std::getenv("LONGSPAN_STAND_IN_NCCL_VERSION");
  *version = told != nullptr ? std::atoi(told) : NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess ? "no error" : "error of the stand-in";
}

const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int64_t> next{1};
  *id = {};
  std::snprintf(
      id->internal, sizeof(id->internal), "/longspan-nccl-%d-%lld-%lld", getpid(),
      static_cast<long long>(next++),
      static_cast<long long>(std::chrono::system_clock::now().time_since_epoch().count()));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* made, int size, ncclUniqueId id, int rank) {
  if (size > kMostRanks) return ncclInvalidArgument;
  int device = 0;
  (void)cudaGetDevice(&device);
  std::shared_ptr<World> world = World::Join(id.internal, size, rank, device);
  if (world == nullptr) return ncclSystemError;
  if (!world->OneGpuARank()) return ncclInvalidUsage;
  auto* const communicator = new ncclComm;
  communicator->world = std::move(world);
  (void)cudaEventCreateWithFlags(&communicator->last, cudaEventDisableTiming);
  *made = communicator;
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  (void)cudaEventDestroy(communicator->last);
  delete communicator;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  communicator->world->Abort();
  return ncclCommDestroy(communicator);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* result) {
  const int told = error_to_report;
  *result = told != ncclSuccess             ? static_cast<ncclResult_t>(told)
            : communicator->world->failed() ? ncclRemoteError
                                            : ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (--group.depth > 0) return ncclSuccess;
  if (!group.sides.empty()) {
    InOrder(group.communicator, group.stream,
            [world = group.communicator->world, sides = group.sides] { world->Transfer(sides); });
  }
  const bool issued = !group.sides.empty();
  group.sides.clear();
  return issued ? Return(group.communicator) : ncclSuccess;
}

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  return Add(true, const_cast<void*>(from), count, type, peer, communicator, stream);
}

ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  return Add(false, to, count, type, peer, communicator, stream);
}

ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclRedOp_t, ncclComm_t communicator, cudaStream_t stream) {
  InOrder(communicator, stream,
          [world = communicator->world, from, to, type, bytes = count * SizeOf(type)] {
            const auto whole = [&](int) { return static_cast<const char*>(from); };
            WriteSum(Swap(*world, bytes, whole), type, to);
          });
  return Return(communicator);
}

ncclResult_t ncclReduceScatter(const void* from, void* to, size_t count, ncclDataType_t type,
                               ncclRedOp_t, ncclComm_t communicator, cudaStream_t stream) {
  InOrder(communicator, stream,
          [world = communicator->world, from, to, type, bytes = count * SizeOf(type)] {
            const auto part = [&](int peer) {
              return static_cast<const char*>(from) + peer * bytes;
            };
            WriteSum(Swap(*world, bytes, part), type, to);
          });
  return Return(communicator);
}

ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclComm_t communicator, cudaStream_t stream) {
  InOrder(communicator, stream,
          [world = communicator->world, from, to, bytes = count * SizeOf(type)] {
            const auto mine = [&](int) { return static_cast<const char*>(from); };
            const std::vector<std::vector<char>> all = Swap(*world, bytes, mine);
            for (size_t rank = 0; rank < all.size(); ++rank)
              std::memcpy(static_cast<char*>(to) + rank * bytes, all[rank].data(), bytes);
          });
  return Return(communicator);
}

}  // extern "C"
