#include "runtime.h"

#include <cuda.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "memory.h"
#include "stream_thread.h"

namespace longspan::stand_in {
namespace {

// Whether the thread runs a callback, in which CUDA may not be called.
thread_local bool in_callback = false;

int DeviceCount() {
  static const int count = [] {
    const char* const text = std::getenv("LONGSPAN_STAND_IN_DEVICES");
    return text == nullptr ? 2 : std::atoi(text);
  }();
  return count;
}

// What is alive in this process. Leaked on purpose: others may call CUDA at the very end.
struct World {
  std::mutex mutex;
  std::set<StreamThread*> streams;
  std::set<EventState*> events;
  StreamThread* null_streams[64] = {};
  std::map<const uint32_t*, uint32_t> raised;  // words, as streams wrote them last
  std::atomic<int64_t> allocations{0}, pool_allocations{0}, waits{0}, host_holds{0},
      stream_holds{0}, launches{0};
  // Of a kernel: every call returns it from then on, and nothing more runs.
  std::atomic<cudaError_t> fault{cudaSuccess};
};
World& TheWorld() {
  static World& world = *new World;
  return world;
}

thread_local int current_device = 0;
thread_local int64_t waits_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

void CountWait() {
  ++TheWorld().waits;
  ++waits_of_thread;
}

cudaError_t Return(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// Whether a kernel of the process is to go wrong now.
bool FaultIsDue() {
  static const char* const file = std::getenv("LONGSPAN_STAND_IN_FAULT");
  return file != nullptr && access(file, F_OK) == 0;
}

// For LONGSPAN_STAND_IN_PEAK.
void WritePeakAtExit() {
  static const char* const name = std::getenv("LONGSPAN_STAND_IN_PEAK");
  static std::once_flag once;
  if (name == nullptr) return;
  std::call_once(once, [] {
    (void)std::atexit([] {
      std::FILE* const file = std::fopen(name, "w");
      if (file == nullptr) return;
      std::fprintf(file, "%zu\n", Memory::Get().most_used());
      std::fclose(file);
    });
  });
}

// What a call returns before it does anything.
cudaError_t Refusal() { return in_callback ? cudaErrorNotPermitted : TheWorld().fault.load(); }

#define REFUSE()                                                                           \
  if (const cudaError_t refusal = ::longspan::stand_in::Refusal(); refusal != cudaSuccess) \
  return Return(refusal)

// nullptr for a stream that is not alive.
StreamThread* Find(cudaStream_t stream) {
  World& world = TheWorld();
  std::lock_guard lock(world.mutex);
  if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
    StreamThread*& thread = world.null_streams[current_device];
    if (thread == nullptr) thread = new StreamThread(current_device);
    return thread;
  }
  StreamThread* const thread = reinterpret_cast<StreamThread*>(stream);
  return world.streams.count(thread) > 0 ? thread : nullptr;
}

cudaError_t Queue(cudaStream_t stream, std::function<void()> work) {
  REFUSE();
  StreamThread* const thread = Find(stream);
  if (thread == nullptr) return Return(cudaErrorInvalidResourceHandle);
  thread->Push([work = std::move(work)] {
    if (TheWorld().fault == cudaSuccess) work();
  });
  return cudaSuccess;
}

cudaError_t WaitForStream(cudaStream_t stream) {
  REFUSE();
  StreamThread* const thread = Find(stream);
  if (thread == nullptr) return Return(cudaErrorInvalidResourceHandle);
  thread->PushMark()->Wait();
  return Return(TheWorld().fault);
}

void WaitForAll() {
  World& world = TheWorld();
  std::vector<std::shared_ptr<Mark>> marks;
  {
    std::lock_guard lock(world.mutex);
    for (StreamThread* stream : world.streams) marks.push_back(stream->PushMark());
    for (StreamThread* stream : world.null_streams) {
      if (stream != nullptr) marks.push_back(stream->PushMark());
    }
  }
  for (const auto& mark : marks) mark->Wait();
}

enum class Side { kDevice, kPinned, kPageable, kWrong };

Side SideOf(const void* at, size_t bytes) {
  Memory::Place place;
  if (Memory::Get().Find(at, bytes, place))
    return place.kind == MemoryKind::kDevice ? Side::kDevice : Side::kPinned;
  return Memory::Get().Touches(at, bytes) ? Side::kWrong : Side::kPageable;
}

bool Serves(cudaMemcpyKind kind, Side to, Side from) {
  if (to == Side::kWrong || from == Side::kWrong) return false;
  const bool to_device = to == Side::kDevice, from_device = from == Side::kDevice;
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    default:
      return kind == cudaMemcpyDefault;
  }
}

cudaError_t CopyRows(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                     size_t rows, cudaMemcpyKind kind, cudaStream_t stream, bool wait) {
  if (width == 0 || rows == 0) return cudaSuccess;
  if (width > to_pitch || width > from_pitch) return Return(cudaErrorInvalidPitchValue);
  const Side to_side = SideOf(to, (rows - 1) * to_pitch + width);
  const Side from_side = SideOf(from, (rows - 1) * from_pitch + width);
  if (!Serves(kind, to_side, from_side)) return Return(cudaErrorInvalidValue);
  const cudaError_t error = Queue(stream, [=] {
    for (size_t row = 0; row < rows; ++row) {
      std::memcpy(static_cast<char*>(to) + row * to_pitch,
                  static_cast<const char*>(from) + row * from_pitch, width);
    }
  });
  if (error != cudaSuccess) return error;
  // Pageable memory is staged: the driver may wait for the stream, and does so here.
  if (!wait && to_side != Side::kPageable && from_side != Side::kPageable) return cudaSuccess;
  CountWait();
  return WaitForStream(stream);
}

cudaError_t FillRows(void* at, size_t pitch, int value, size_t width, size_t rows,
                     cudaStream_t stream) {
  if (width == 0 || rows == 0) return cudaSuccess;
  if (SideOf(at, (rows - 1) * pitch + width) != Side::kDevice) return Return(cudaErrorInvalidValue);
  return Queue(stream, [=] {
    for (size_t row = 0; row < rows; ++row)
      std::memset(static_cast<char*>(at) + row * pitch, value, width);
  });
}

// A stream's wait for `value` has passed.
void CountHold(const uint32_t* word, uint32_t value) {
  World& world = TheWorld();
  std::lock_guard lock(world.mutex);
  const auto raised = world.raised.find(word);
  const bool by_stream =
      raised != world.raised.end() && static_cast<int32_t>(raised->second - value) >= 0;
  ++(by_stream ? world.stream_holds : world.host_holds);
  // The next value may be the host's.
  if (by_stream) world.raised.erase(raised);
}

CUresult WaitForValue(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned flags) {
  const cudaError_t error = Queue(reinterpret_cast<cudaStream_t>(stream), [=] {
    const auto* const word = reinterpret_cast<const uint32_t*>(address);
    while (TheWorld().fault == cudaSuccess) {
      const uint32_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
      if (flags == CU_STREAM_WAIT_VALUE_EQ ? seen == value
                                           : static_cast<int32_t>(seen - value) >= 0) {
        return CountHold(word, value);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  });
  return error == cudaSuccess ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult WriteValue(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned) {
  const cudaError_t error = Queue(reinterpret_cast<cudaStream_t>(stream), [=] {
    auto* const word = reinterpret_cast<uint32_t*>(address);
    {
      std::lock_guard lock(TheWorld().mutex);
      TheWorld().raised[word] = value;
    }
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
  });
  return error == cudaSuccess ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

}  // namespace

Counts CountsSoFar() {
  World& world = TheWorld();
  return {world.allocations, world.pool_allocations, world.waits,
          world.host_holds,  world.stream_holds,     world.launches};
}

int64_t WaitsOfThisThread() { return waits_of_thread; }

std::string Faults() {
  WaitForAll();
  std::string faults = Memory::Get().Faults();
  World& world = TheWorld();
  std::lock_guard lock(world.mutex);
  if (!world.streams.empty())
    faults += std::to_string(world.streams.size()) + " streams not destroyed\n";
  if (!world.events.empty())
    faults += std::to_string(world.events.size()) + " events not destroyed\n";
  return faults;
}

void ClearFaults() { Memory::Get().ClearFaults(); }

cudaError_t Enqueue(cudaStream_t stream, std::function<void()> work) {
  ++TheWorld().launches;
  if (FaultIsDue()) work = [] { TheWorld().fault = cudaErrorIllegalAddress; };
  return Queue(stream, std::move(work));
}

}  // namespace longspan::stand_in

namespace stand_in = longspan::stand_in;
using stand_in::CountWait;
using stand_in::Memory;
using stand_in::MemoryKind;
using stand_in::Return;
using stand_in::TheWorld;

extern "C" {

int LongspanStandInEnqueue(cudaStream_t stream, void (*work)(void*), void* data) {
  return stand_in::Enqueue(stream, [=] { work(data); });
}

// Devices.

cudaError_t cudaGetDeviceCount(int* count) {
  *count = stand_in::DeviceCount();
  return *count > 0 ? cudaSuccess : Return(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  REFUSE();
  if (device < 0 || device >= stand_in::DeviceCount()) return Return(cudaErrorInvalidDevice);
  stand_in::current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = stand_in::current_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= stand_in::DeviceCount()) return Return(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "stand-in GPU");
  properties->totalGlobalMem = stand_in::DeviceBytes();
  properties->major = 9;
  properties->minor = 0;
  properties->multiProcessorCount = 4;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->sharedMemPerBlock = 48 << 10;
  properties->unifiedAddressing = 1;
  properties->pciBusID = device + 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = properties.multiProcessorCount;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrUnifiedAddressing:
      *value = 1;
      return cudaSuccess;
    default:
      return Return(cudaErrorNotSupported);
  }
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  std::snprintf(text, static_cast<size_t>(size), "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  REFUSE();
  CountWait();
  stand_in::WaitForAll();
  return Return(TheWorld().fault);
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = device != peer ? 1 : 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

// That of a kernel stays.
cudaError_t cudaGetLastError() {
  const cudaError_t last = std::exchange(stand_in::last_error, cudaSuccess);
  const cudaError_t fault = TheWorld().fault;
  return fault != cudaSuccess ? fault : last;
}

cudaError_t cudaPeekAtLastError() {
  const cudaError_t fault = TheWorld().fault;
  return fault != cudaSuccess ? fault : stand_in::last_error;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  *function = nullptr;
  if (std::strcmp(name, "cuStreamWaitValue32") == 0)
    *function = reinterpret_cast<void*>(&stand_in::WaitForValue);
  if (std::strcmp(name, "cuStreamWriteValue32") == 0)
    *function = reinterpret_cast<void*>(&stand_in::WriteValue);
  const auto result =
      *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  if (found != nullptr) *found = result;
  return cudaSuccess;
}

// Memory.

static cudaError_t Allocate(MemoryKind kind, void** at, size_t bytes) {
  REFUSE();
  *at = nullptr;
  if (bytes == 0) return cudaSuccess;
  stand_in::WritePeakAtExit();
  *at = Memory::Get().Allocate(kind, stand_in::current_device, bytes);
  return *at != nullptr ? cudaSuccess : Return(cudaErrorMemoryAllocation);
}

cudaError_t cudaMalloc(void** at, size_t bytes) {
  ++TheWorld().allocations;
  return Allocate(MemoryKind::kDevice, at, bytes);
}

cudaError_t cudaHostAlloc(void** at, size_t bytes, unsigned) {
  ++TheWorld().allocations;
  return Allocate(MemoryKind::kPinned, at, bytes);
}

cudaError_t cudaMallocHost(void** at, size_t bytes) { return cudaHostAlloc(at, bytes, 0); }

cudaError_t cudaMallocAsync(void** at, size_t bytes, cudaStream_t stream) {
  ++TheWorld().pool_allocations;
  if (stand_in::Find(stream) == nullptr) return Return(cudaErrorInvalidResourceHandle);
  return Allocate(MemoryKind::kDevice, at, bytes);
}

// Frees when all work that is queued so far has passed, as the driver does.
static cudaError_t Free(MemoryKind kind, void* at) {
  REFUSE();
  if (at == nullptr) return cudaSuccess;
  if (!Memory::Get().TakeBack(at, kind)) return Return(cudaErrorInvalidValue);
  CountWait();
  stand_in::WaitForAll();
  Memory::Get().Release(at);
  return cudaSuccess;
}

cudaError_t cudaFree(void* at) { return Free(MemoryKind::kDevice, at); }
cudaError_t cudaFreeHost(void* at) { return Free(MemoryKind::kPinned, at); }

cudaError_t cudaFreeAsync(void* at, cudaStream_t stream) {
  REFUSE();
  if (at == nullptr) return cudaSuccess;
  if (!Memory::Get().TakeBack(at, MemoryKind::kDevice)) return Return(cudaErrorInvalidValue);
  return stand_in::Queue(stream, [at] { Memory::Get().Release(at); });
}

cudaError_t cudaHostRegister(void* at, size_t bytes, unsigned) {
  REFUSE();
  return Memory::Get().Register(at, bytes) ? cudaSuccess
                                           : Return(cudaErrorHostMemoryAlreadyRegistered);
}

cudaError_t cudaHostUnregister(void* at) {
  REFUSE();
  return Memory::Get().Unregister(at) ? cudaSuccess : Return(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  if (stand_in::SideOf(host, 1) != stand_in::Side::kPinned) return Return(cudaErrorInvalidValue);
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* at) {
  *attributes = {};
  Memory::Place place;
  if (!Memory::Get().Find(at, 1, place)) {
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->hostPointer = const_cast<void*>(at);
    return cudaSuccess;
  }
  const bool on_device = place.kind == MemoryKind::kDevice;
  attributes->type = on_device ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
  attributes->device = place.device;
  attributes->devicePointer = const_cast<void*>(at);
  attributes->hostPointer = on_device ? nullptr : const_cast<void*>(at);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *total = stand_in::DeviceBytes();
  *free_bytes = *total - Memory::Get().used(stand_in::current_device);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = reinterpret_cast<cudaMemPool_t>(static_cast<uintptr_t>(device + 1));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
  return cudaDeviceGetDefaultMemPool(pool, device);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return stand_in::CopyRows(to, bytes, from, bytes, bytes, 1, kind, stream, false);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return stand_in::CopyRows(to, bytes, from, bytes, bytes, 1, kind, nullptr, true);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
  return stand_in::CopyRows(to, to_pitch, from, from_pitch, width, rows, kind, stream, false);
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream) {
  return stand_in::FillRows(at, bytes, value, bytes, 1, stream);
}

cudaError_t cudaMemset2DAsync(void* at, size_t pitch, int value, size_t width, size_t rows,
                              cudaStream_t stream) {
  return stand_in::FillRows(at, pitch, value, width, rows, stream);
}

cudaError_t cudaMemset(void* at, int value, size_t bytes) {
  const cudaError_t error = stand_in::FillRows(at, bytes, value, bytes, 1, nullptr);
  return error != cudaSuccess ? error : stand_in::WaitForStream(nullptr);
}

// Streams.

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  REFUSE();
  auto* const thread = new stand_in::StreamThread(stand_in::current_device);
  std::lock_guard lock(TheWorld().mutex);
  TheWorld().streams.insert(thread);
  *stream = reinterpret_cast<cudaStream_t>(thread);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  REFUSE();
  auto* const thread = reinterpret_cast<stand_in::StreamThread*>(stream);
  {
    std::lock_guard lock(TheWorld().mutex);
    if (TheWorld().streams.erase(thread) == 0) return Return(cudaErrorInvalidResourceHandle);
  }
  delete thread;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  CountWait();
  return stand_in::WaitForStream(stream);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  REFUSE();
  stand_in::StreamThread* const thread = stand_in::Find(stream);
  if (thread == nullptr) return Return(cudaErrorInvalidResourceHandle);
  return thread->idle() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void* data,
                                  unsigned) {
  REFUSE();
  stand_in::StreamThread* const thread = stand_in::Find(stream);
  if (thread == nullptr) return Return(cudaErrorInvalidResourceHandle);
  // After a fault too: it is how the host hears of it.
  thread->Push([=] {
    stand_in::in_callback = true;
    callback(stream, TheWorld().fault, data);
    stand_in::in_callback = false;
    ++TheWorld().host_holds;
  });
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return stand_in::Queue(stream, [=] {
    stand_in::in_callback = true;
    function(data);
    stand_in::in_callback = false;
    ++TheWorld().host_holds;
  });
}

// Events.

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  REFUSE();
  auto* const state = new stand_in::EventState;
  std::lock_guard lock(TheWorld().mutex);
  TheWorld().events.insert(state);
  *event = reinterpret_cast<cudaEvent_t>(state);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  auto* const state = reinterpret_cast<stand_in::EventState*>(event);
  std::lock_guard lock(TheWorld().mutex);
  if (TheWorld().events.erase(state) == 0) return Return(cudaErrorInvalidResourceHandle);
  delete state;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  REFUSE();
  stand_in::StreamThread* const thread = stand_in::Find(stream);
  if (thread == nullptr) return Return(cudaErrorInvalidResourceHandle);
  auto* const state = reinterpret_cast<stand_in::EventState*>(event);
  std::lock_guard lock(state->mutex);
  state->mark = thread->PushMark();
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  REFUSE();
  const auto mark = reinterpret_cast<stand_in::EventState*>(event)->Latest();
  return mark == nullptr || mark->passed() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  REFUSE();
  CountWait();
  const auto mark = reinterpret_cast<stand_in::EventState*>(event)->Latest();
  if (mark != nullptr) mark->Wait();
  return Return(TheWorld().fault);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const auto begin = reinterpret_cast<stand_in::EventState*>(from)->Latest();
  const auto end = reinterpret_cast<stand_in::EventState*>(to)->Latest();
  if (begin == nullptr || end == nullptr) return Return(cudaErrorInvalidResourceHandle);
  if (!begin->passed() || !end->passed()) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(end->at() - begin->at()).count();
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const auto mark = reinterpret_cast<stand_in::EventState*>(event)->Latest();
  if (mark == nullptr) return cudaSuccess;
  return stand_in::Queue(stream, [mark] {
    mark->Wait();
    ++TheWorld().stream_holds;
  });
}

}  // extern "C"
