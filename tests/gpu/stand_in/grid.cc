#include "grid.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "device_language.h"
#include "runtime.h"

#ifndef __x86_64__
#error "the stand-in switches fibers in x86-64 instructions"
#endif

// Saves the callee's registers on the stack, the stack's place in *save, and goes on where `to` was
// saved. Kernels leave the floating-point modes alone.
extern "C" void LongspanStandInSwitch(void** save, void* to);
asm(R"(
.text
.globl LongspanStandInSwitch
.type LongspanStandInSwitch,@function
LongspanStandInSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size LongspanStandInSwitch,.-LongspanStandInSwitch
)");

namespace longspan::stand_in {
namespace {

constexpr int kMostThreads = 1024;
constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kMostShared = 48 << 10;  // without asking for more
constexpr uint64_t kStackGuard = 0x5741434b454e4421;

[[noreturn]] void Die(const char* message) {
  std::fprintf(stderr, "stand-in GPU: %s (block %u %u %u, thread %u %u %u)\n", message, blockIdx.x,
               blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  std::fflush(stderr);
  std::abort();
}

// A small generator, so that orders differ from phase to phase and agree from run to run.
uint32_t Next(uint32_t& state) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

enum class State : uint8_t { kReady, kAtWarpBarrier, kAtBlockBarrier, kDone };

struct Fiber {
  void* stack_pointer = nullptr;
  State state = State::kDone;
  unsigned mask = 0;  // of the warp barrier
  uint3 thread{};
  uint32_t exchanges = 0;
};

struct Warp {
  // Two rounds: a lane may put in its next value before others have read this one.
  uint64_t values[2][kWarpLanes];
};

// One thread's execution of blocks.
class BlockRunner {
 public:
  BlockRunner() {
    stacks_ = static_cast<char*>(mmap(nullptr, kMostThreads * kStackBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks_ == MAP_FAILED) Die("no memory for the stacks of a block");
  }
  ~BlockRunner() { munmap(stacks_, kMostThreads * kStackBytes); }

  void Run(dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
    kernel_ = &kernel;
    count_ = static_cast<int>(block.x * block.y * block.z);
    shared_.assign(shared_bytes / 16 + 1, Poison{});
    std::memset(static_cast<void*>(shared_.data()), 0xff, shared_.size() * sizeof(Poison));
    for (int i = 0; i < count_; ++i) {
      Fiber& fiber = fibers_[i];
      if (fiber.stack_pointer == nullptr) Prepare(i);
      fiber.state = State::kReady;
      fiber.exchanges = 0;
      const unsigned u = static_cast<unsigned>(i);
      fiber.thread = {u % block.x, u / block.x % block.y, u / block.x / block.y};
    }
    const int warps = (count_ + kWarpLanes - 1) / kWarpLanes;
    while (true) {
      const int first = static_cast<int>(Next(random_) % static_cast<uint32_t>(warps));
      const bool backwards = Next(random_) % 2 == 0;
      for (int i = 0; i < warps; ++i) RunWarp((first + (backwards ? warps - i : i)) % warps);
      if (!PassBlockBarrier()) break;
    }
    for (int i = 0; i < count_; ++i) {
      if (*Guard(i) != kStackGuard) Die("a thread's variables do not fit its stack");
    }
  }

  char* shared() { return reinterpret_cast<char*>(shared_.data()); }
  int current() const { return current_; }

  void Wait(State state, unsigned mask) {
    Fiber& fiber = fibers_[current_];
    fiber.state = state;
    fiber.mask = mask;
    LongspanStandInSwitch(&fiber.stack_pointer, scheduler_);
  }

  void Exchange(unsigned mask, const void* mine, void* theirs, size_t bytes, int source) {
    if (source < 0 || source >= kWarpLanes || (mask >> source & 1) == 0)
      Die("a shuffle reads a lane that is not in its mask");
    Fiber& fiber = fibers_[current_];
    Warp& warp = warps_[current_ / kWarpLanes];
    uint64_t* const values = warp.values[fiber.exchanges++ % 2];
    std::memcpy(&values[current_ % kWarpLanes], mine, bytes);
    Wait(State::kAtWarpBarrier, mask);
    std::memcpy(theirs, &values[source], bytes);
  }

 private:
  struct alignas(16) Poison {
    char bytes[16];
  };

  uint64_t* Guard(int index) { return reinterpret_cast<uint64_t*>(stacks_ + index * kStackBytes); }

  void Prepare(int index) {
    *Guard(index) = kStackGuard;
    char* const top = stacks_ + (index + 1) * kStackBytes;
    // What the switch pops: six registers, then where to go.
    void** const frame = reinterpret_cast<void**>(top - 16) - 6;
    std::memset(static_cast<void*>(frame), 0, 6 * sizeof(void*));
    frame[6] = reinterpret_cast<void*>(&BlockRunner::FiberMain);
    frame[7] = nullptr;
    fibers_[index].stack_pointer = frame;
  }

  static void FiberMain();

  void Resume(int index) {
    current_ = index;
    threadIdx = fibers_[index].thread;
    LongspanStandInSwitch(&scheduler_, fibers_[index].stack_pointer);
  }

  // Until all of its lanes are done or at the block's barrier.
  void RunWarp(int warp) {
    const int begin = warp * kWarpLanes, lanes = std::min(kWarpLanes, count_ - begin);
    while (true) {
      const int turn = static_cast<int>(Next(random_) % kWarpLanes);
      const int flip = static_cast<int>(Next(random_) % kWarpLanes);
      unsigned waiting = 0;
      for (int i = 0; i < kWarpLanes; ++i) {
        const int lane = ((i + turn) % kWarpLanes) ^ flip;
        if (lane >= lanes) continue;
        Fiber& fiber = fibers_[begin + lane];
        if (fiber.state == State::kReady) Resume(begin + lane);
        if (fiber.state == State::kAtWarpBarrier) waiting |= 1u << lane;
      }
      if (waiting == 0) return;
      bool passed = false;
      for (int lane = 0; lane < lanes; ++lane) {
        Fiber& fiber = fibers_[begin + lane];
        if (fiber.state != State::kAtWarpBarrier) continue;
        if ((fiber.mask >> lane & 1) == 0) Die("a lane waits with a mask that it is not in");
        if ((fiber.mask & waiting) != fiber.mask) continue;
        fiber.state = State::kReady;
        passed = true;
      }
      if (!passed) Die("lanes of a warp wait for one that has ended or waits elsewhere");
    }
  }

  // False when all threads are done. A thread that has ended counts as one that has arrived.
  bool PassBlockBarrier() {
    bool any = false;
    for (int i = 0; i < count_; ++i) {
      if (fibers_[i].state != State::kAtBlockBarrier) continue;
      fibers_[i].state = State::kReady;
      any = true;
    }
    return any;
  }

  const std::function<void()>* kernel_ = nullptr;
  int count_ = 0, current_ = 0;
  uint32_t random_ = 2463534242u;
  void* scheduler_ = nullptr;
  char* stacks_ = nullptr;
  Fiber fibers_[kMostThreads];
  Warp warps_[kMostThreads / kWarpLanes];
  std::vector<Poison> shared_;
};

thread_local std::unique_ptr<BlockRunner> runner;

void BlockRunner::FiberMain() {
  BlockRunner& self = *runner;
  while (true) {
    (*self.kernel_)();
    self.Wait(State::kDone, 0);
  }
}

}  // namespace

void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  if (runner == nullptr) runner = std::make_unique<BlockRunner>();
  gridDim = grid;
  blockDim = block;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  // A stride that has no divisor in common with the number of blocks visits each of them once.
  const uint64_t stride = blocks % 7919 != 0 ? 7919 : 1;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t at = i * stride % blocks;
    blockIdx = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                static_cast<unsigned>(at / grid.x / grid.y)};
    runner->Run(block, shared_bytes, kernel);
  }
}

cudaError_t LaunchGrid(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                       std::function<void()> kernel) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.z > 64 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  if (shared_bytes > kMostShared) return cudaErrorInvalidValue;
  return Enqueue(stream,
                 [=, body = std::move(kernel)] { RunGrid(grid, block, shared_bytes, body); });
}

char* LaunchShared() { return runner->shared(); }
void BlockBarrier() { runner->Wait(State::kAtBlockBarrier, 0); }
void WarpBarrier(unsigned mask) { runner->Wait(State::kAtWarpBarrier, mask); }
void Exchange(unsigned mask, const void* mine, void* theirs, size_t bytes, int source) {
  runner->Exchange(mask, mine, theirs, bytes, source);
}
int Lane() { return runner->current() % kWarpLanes; }

}  // namespace longspan::stand_in
