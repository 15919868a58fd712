// A stand-in for libnccl: the functions that parallel/transport calls, between threads of one
// process. Like the library it keeps one order a communicator, runs a group at its end, refuses two
// ranks on one GPU, needs both sides of a message, and waits for a rank that never comes until the
// communicator is aborted; sizes that differ are errors here.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

extern "C" int LongspanStandInEnqueue(cudaStream_t stream, void (*work)(void*), void* data);

namespace {

size_t SizeOf(ncclDataType_t type) {
  return type == ncclFloat64    ? 8
         : type == ncclFloat32  ? 4
         : type == ncclBfloat16 ? 2
         : type == ncclUint8    ? 1
                                : 0;
}

// A message between two ranks: both sides come to it, the receiver copies.
struct Letter {
  const void* from = nullptr;
  void* to = nullptr;
  size_t sent = 0, expected = 0;
  bool done = false;
};

// What the ranks of one communicator share.
struct World {
  explicit World(int size) : ranks(size), devices(size, -1), inputs(size) {}

  const int ranks;
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<bool> failed{false};
  std::vector<int> devices;
  int joined = 0;
  // Letters under way by (source, destination), oldest first, those without one of the sides.
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Letter>>> unsent, unreceived;
  // The collective call that ranks meet in; each meets twice: to show its input, and when it has
  // read the others'.
  std::vector<const void*> inputs;
  int64_t meetings = 0;
  int here = 0;

  // Under `lock`, until all ranks are here; whether they came before `aborted`.
  bool Meet(std::unique_lock<std::mutex>& lock, const bool& aborted) {
    const int64_t meeting = meetings;
    if (++here == ranks) {
      here = 0;
      ++meetings;
      changed.notify_all();
    }
    changed.wait(lock, [&] { return meetings != meeting || aborted; });
    if (meetings == meeting) --here;
    return meetings != meeting;
  }
};

// What tests ask for, of every communicator.
std::atomic<int> error_to_report{ncclSuccess};
std::atomic<bool> calls_hang{false};

std::mutex worlds_mutex;
std::map<std::vector<char>, std::shared_ptr<World>>& Worlds() {
  static auto& worlds = *new std::map<std::vector<char>, std::shared_ptr<World>>;
  return worlds;
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

// Takes the other side of a message, or leaves this one for it.
std::shared_ptr<Letter> Match(std::deque<std::shared_ptr<Letter>>& waiting,
                              std::deque<std::shared_ptr<Letter>>& mine) {
  if (waiting.empty()) return mine.emplace_back(std::make_shared<Letter>());
  std::shared_ptr<Letter> letter = waiting.front();
  waiting.pop_front();
  return letter;
}

struct Side {
  bool send;
  void* memory;
  size_t bytes;
  int peer;
};

struct Group {
  int depth = 0;
  cudaStream_t stream = nullptr;
  ncclComm* communicator = nullptr;
  std::vector<Side> sides;
};
thread_local Group group;

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  // Under the world's lock. What is queued on a stream outlives the communicator.
  const std::shared_ptr<bool> aborted = std::make_shared<bool>(false);
  int rank = 0, device = 0;
  cudaEvent_t last = nullptr;  // operations of a communicator run one after the other
};

namespace {

// Where calls hang: until the communicator is aborted.
ncclResult_t Return(ncclComm* communicator) {
  if (!calls_hang) return ncclSuccess;
  const std::shared_ptr<World> world = communicator->world;
  const std::shared_ptr<bool> aborted = communicator->aborted;
  std::unique_lock lock(world->mutex);
  world->changed.wait(lock, [&] { return *aborted; });
  return ncclInternalError;
}

// Before and after each operation: the order of the communicator, whatever streams it is used on.
void InOrder(ncclComm* communicator, cudaStream_t stream, std::function<void()> work) {
  (void)cudaStreamWaitEvent(stream, communicator->last, 0);
  Enqueue(stream, std::move(work));
  (void)cudaEventRecord(communicator->last, stream);
}

void Post(World& world, int rank, const std::vector<Side>& sides, const bool& aborted) {
  std::vector<std::shared_ptr<Letter>> letters;
  std::unique_lock lock(world.mutex);
  if (aborted) return;
  for (const Side& side : sides) {
    const auto way = side.send ? std::pair(rank, side.peer) : std::pair(side.peer, rank);
    auto& unsent = world.unsent[way];
    auto& unreceived = world.unreceived[way];
    std::shared_ptr<Letter> letter =
        side.send ? Match(unsent, unreceived) : Match(unreceived, unsent);
    if (side.send) {
      letter->from = side.memory;
      letter->sent = side.bytes;
    } else {
      letter->to = side.memory;
      letter->expected = side.bytes;
    }
    if (letter->from != nullptr && letter->to != nullptr) {
      if (letter->sent != letter->expected) world.failed = true;
      std::memcpy(letter->to, letter->from, std::min(letter->sent, letter->expected));
      letter->done = true;
    }
    letters.push_back(std::move(letter));
  }
  world.changed.notify_all();
  for (const auto& letter : letters) {
    world.changed.wait(lock, [&] { return letter->done || aborted; });
    if (letter->done) continue;
    // Its memory is not to be touched any more.
    for (auto* waiting : {&world.unsent, &world.unreceived}) {
      for (auto& [way, each] : *waiting) std::erase(each, letter);
    }
  }
}

template <typename T>
void Add(const void* from, std::vector<char>& sum) {
  for (size_t i = 0; i < sum.size() / sizeof(T); ++i) {
    reinterpret_cast<T*>(sum.data())[i] += static_cast<const T*>(from)[i];
  }
}

// Every addition rounds, as between the ranks of a ring.
void AddBf16(const void* from, std::vector<char>& sum) {
  const auto value = [](uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); };
  for (size_t i = 0; i < sum.size() / sizeof(uint16_t); ++i) {
    uint16_t& held = reinterpret_cast<uint16_t*>(sum.data())[i];
    const auto bits =
        std::bit_cast<uint32_t>(value(held) + value(static_cast<const uint16_t*>(from)[i]));
    held = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}

// Sums bytes [begin, begin + bytes) of all inputs; the caller writes it once all have read.
std::vector<char> SumOf(const World& world, size_t begin, size_t bytes, ncclDataType_t type) {
  std::vector<char> sum(bytes);
  std::memcpy(sum.data(), static_cast<const char*>(world.inputs[0]) + begin, bytes);
  for (int rank = 1; rank < world.ranks; ++rank) {
    const char* const from = static_cast<const char*>(world.inputs[rank]) + begin;
    switch (type) {
      case ncclFloat32:
        Add<float>(from, sum);
        break;
      case ncclBfloat16:
        AddBf16(from, sum);
        break;
      default:
        Add<double>(from, sum);
    }
  }
  return sum;
}

ncclResult_t Collective(ncclComm* communicator, cudaStream_t stream, const void* input,
                        std::function<std::vector<char>(const World&)> result, void* output) {
  const std::shared_ptr<World> world = communicator->world;
  InOrder(communicator, stream, [=, rank = communicator->rank, aborted = communicator->aborted] {
    std::unique_lock lock(world->mutex);
    world->inputs[rank] = input;
    if (*aborted || !world->Meet(lock, *aborted)) return;
    const std::vector<char> mine = result(*world);
    if (!world->Meet(lock, *aborted)) return;
    std::memcpy(output, mine.data(), mine.size());
  });
  return Return(communicator);
}

ncclResult_t Add(bool send, void* memory, size_t count, ncclDataType_t type, int peer,
                 ncclComm_t communicator, cudaStream_t stream) {
  if (group.depth == 0 || SizeOf(type) == 0 || peer < 0 || peer >= communicator->world->ranks) {
    return ncclInvalidUsage;
  }
  group.communicator = communicator;
  group.stream = stream;
  group.sides.push_back({send, memory, count * SizeOf(type), peer});
  return ncclSuccess;
}

}  // namespace

extern "C" {

// For tests. What ncclCommGetAsyncError says from now on, ncclSuccess: what is so.
void LongspanStandInNcclError(int result) { error_to_report = result; }
// Calls that issue operations return only once their communicator is aborted.
void LongspanStandInNcclHang(int hang) { calls_hang = hang != 0; }

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess ? "no error" : "error of the stand-in";
}

const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int64_t> next{1};
  *id = {};
  const int64_t number = next++;
  std::memcpy(id, &number, sizeof(number));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* made, int size, ncclUniqueId id, int rank) {
  const char* const bytes = reinterpret_cast<const char*>(&id);
  std::shared_ptr<World> world;
  {
    std::lock_guard lock(worlds_mutex);
    std::shared_ptr<World>& entry = Worlds()[std::vector<char>(bytes, bytes + sizeof(id))];
    if (entry == nullptr) entry = std::make_shared<World>(size);
    world = entry;
  }
  auto* const communicator = new ncclComm;
  communicator->world = world;
  communicator->rank = rank;
  (void)cudaGetDevice(&communicator->device);
  (void)cudaEventCreateWithFlags(&communicator->last, cudaEventDisableTiming);
  std::unique_lock lock(world->mutex);
  world->devices[rank] = communicator->device;
  ++world->joined;
  world->changed.notify_all();
  world->changed.wait(lock, [&] { return world->joined == size; });
  *made = communicator;
  const std::set<int> distinct(world->devices.begin(), world->devices.end());
  return static_cast<int>(distinct.size()) == size ? ncclSuccess : ncclInvalidUsage;
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  (void)cudaEventDestroy(communicator->last);
  delete communicator;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  {
    const std::shared_ptr<World> world = communicator->world;
    const std::lock_guard lock(world->mutex);
    *communicator->aborted = true;
    world->changed.notify_all();
  }
  return ncclCommDestroy(communicator);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* result) {
  const int told = error_to_report;
  *result = told != ncclSuccess           ? static_cast<ncclResult_t>(told)
            : communicator->world->failed ? ncclRemoteError
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
            [world = group.communicator->world, rank = group.communicator->rank,
             aborted = group.communicator->aborted,
             sides = group.sides] { Post(*world, rank, sides, *aborted); });
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
  const size_t bytes = count * SizeOf(type);
  return Collective(
      communicator, stream, from, [=](const World& world) { return SumOf(world, 0, bytes, type); },
      to);
}

ncclResult_t ncclReduceScatter(const void* from, void* to, size_t count, ncclDataType_t type,
                               ncclRedOp_t, ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = count * SizeOf(type), begin = bytes * communicator->rank;
  return Collective(
      communicator, stream, from,
      [=](const World& world) { return SumOf(world, begin, bytes, type); }, to);
}

ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = count * SizeOf(type);
  return Collective(
      communicator, stream, from,
      [=](const World& world) {
        std::vector<char> all;
        for (const void* input : world.inputs) {
          const char* const part = static_cast<const char*>(input);
          all.insert(all.end(), part, part + bytes);
        }
        return all;
      },
      to);
}

}  // extern "C"
