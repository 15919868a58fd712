#include "kernels/device/cuda_device.h"

#ifdef LONGSPAN_HAVE_CUDA

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/device/cuda_memory.h"
#include "kernels/device/cuda_status.h"
#include "kernels/device/stream_state.h"

namespace longspan {
namespace {

// Lets a CUDA stream wait for events that the host completes: wait number k of the stream passes
// when the word in pinned memory has reached k. Events complete in any order, so the word moves
// only past those that are all done.
class HostGate {
 public:
  // nullptr: of a stream that could not be made, on which nothing waits.
  explicit HostGate(uint32_t* word) : word_(word) {}

  // The number of a new wait.
  uint32_t Add() {
    std::lock_guard lock(mutex_);
    return ++added_;
  }

  void Open(uint32_t number, const absl::Status& outcome) {
    std::lock_guard lock(mutex_);
    if (failure_.ok() && !outcome.ok()) failure_ = outcome;
    early_.insert(number);
    while (early_.erase(passed_ + 1) > 0) ++passed_;
    __atomic_store_n(word_, passed_, __ATOMIC_RELEASE);
    changed_.notify_all();
  }

  // Afterwards nothing touches the word any more.
  void WaitUntilAllOpen() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return passed_ == added_; });
  }

  void Fail(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = status;
  }

  absl::Status failure() const {
    std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint32_t* const word_;
  uint32_t added_ = 0;
  uint32_t passed_ = 0;
  std::set<uint32_t> early_;  // open, but behind one that is not
  absl::Status failure_;
};

// What a recorded event needs when the stream gets there.
struct Recorded {
  EventPromise promise;
  std::shared_ptr<HostGate> gate;
};

// Runs on a driver thread, also when the stream has failed (which is why it is not
// cudaLaunchHostFunc). No CUDA calls allowed.
void CUDART_CB CompleteRecorded(cudaStream_t, cudaError_t error, void* data) {
  const std::unique_ptr<Recorded> recorded(static_cast<Recorded*>(data));
  if (error != cudaSuccess) recorded->gate->Fail(DescribeCuda(error, "stream"));
  recorded->promise.Complete(recorded->gate->failure());
}

// Seconds that streams stood before events which were not yet done.
class WaitClock {
 public:
  // One wait: the stream comes to it, and its event is done, in either order.
  class Wait {
   public:
    explicit Wait(std::shared_ptr<WaitClock> clock) : clock_(std::move(clock)) {}
    void Reached() {
      std::lock_guard lock(mutex_);
      if (!done_) reached_ = std::chrono::steady_clock::now();
    }
    void Done() {
      std::lock_guard lock(mutex_);
      done_ = true;
      if (!reached_.has_value()) return;
      clock_->Add(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - *reached_).count());
    }

   private:
    const std::shared_ptr<WaitClock> clock_;
    std::mutex mutex_;
    bool done_ = false;
    std::optional<std::chrono::steady_clock::time_point> reached_;
  };

  void Add(double seconds) {
    std::lock_guard lock(mutex_);
    seconds_ += seconds;
  }
  double seconds() const {
    std::lock_guard lock(mutex_);
    return seconds_;
  }

 private:
  mutable std::mutex mutex_;
  double seconds_ = 0;
};

void CUDART_CB NoteReached(cudaStream_t, cudaError_t, void* data) {
  const std::unique_ptr<std::shared_ptr<WaitClock::Wait>> wait(
      static_cast<std::shared_ptr<WaitClock::Wait>*>(data));
  (*wait)->Reached();
}

}  // namespace

struct CudaStreamState : Stream::State {
  CudaStreamState(Device& owner, int device_index, CudaMemory& source,
                  PFN_cuStreamWaitValue32_v11070 wait_for_value, std::string label)
      : State(owner),
        index(device_index),
        memory(source),
        name(std::move(label)),
        wait_value(wait_for_value) {
    absl::Status made = CudaStatus(cudaSetDevice(index), "cudaSetDevice");
    if (made.ok()) {
      made = CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                        "cudaStreamCreateWithFlags");
    }
    if (made.ok()) {
      word = static_cast<uint32_t*>(memory.Allocate(sizeof(uint32_t), Placement::kPinnedHost));
      if (word == nullptr) made = absl::ResourceExhaustedError("no pinned memory for a stream");
    }
    if (word != nullptr) *word = 0;
    gate = std::make_shared<HostGate>(word);
    if (!made.ok()) gate->Fail(made);
  }

  ~CudaStreamState() override {
    worker.reset();  // waits for what it was given, as for all that is queued
    gate->WaitUntilAllOpen();
    (void)cudaSetDevice(index);
    if (stream != nullptr) {
      (void)cudaStreamSynchronize(stream);
      (void)cudaStreamDestroy(stream);
    }
    if (word != nullptr) memory.Free(word, Placement::kPinnedHost);
  }

  void Launch(const char* work, std::function<absl::Status()>) override {
    const std::string message = absl::StrCat("no CUDA body for '", work, "'");
    LONGSPAN_CHECK(false, message.c_str());
  }

  Event RunOnHost(const char* work, std::function<absl::Status()> body) override {
    // The two go together: what is recorded here belongs to this body.
    const std::lock_guard lock(worker_mutex);
    if (worker == nullptr) worker = MakeWorker(device, name);
    worker->WaitFor(Record());
    return worker->RunOnHost(work, [device_index = index, body = std::move(body)] {
      (void)cudaSetDevice(device_index);
      return body();
    });
  }

  void CopyBytes(const void* from, void* to, int64_t bytes) override {
    if (word == nullptr) return;
    (void)cudaSetDevice(index);
    const absl::Status status =
        CudaStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream),
                   "cudaMemcpyAsync");
    if (!status.ok()) gate->Fail(status);
  }

  Event Record() override {
    auto recorded = std::make_unique<Recorded>();
    recorded->gate = gate;
    const Event event = recorded->promise.event();
    if (word == nullptr) {
      recorded->promise.Complete(gate->failure());
      return event;
    }
    (void)cudaSetDevice(index);
    const absl::Status status =
        CudaStatus(cudaStreamAddCallback(stream, CompleteRecorded, recorded.get(), 0),
                   "cudaStreamAddCallback");
    if (status.ok()) {
      recorded.release();  // CompleteRecorded owns it now
    } else {
      gate->Fail(status);
      recorded->promise.Complete(status);
    }
    return event;
  }

  void WaitFor(const Event& event) override {
    if (word == nullptr) return;
    if (event.Done()) {
      if (const absl::Status outcome = event.Wait(); !outcome.ok()) gate->Fail(outcome);
      return;
    }
    const uint32_t number = gate->Add();
    (void)cudaSetDevice(index);
    const auto wait = std::make_shared<WaitClock::Wait>(clock);
    auto note = std::make_unique<std::shared_ptr<WaitClock::Wait>>(wait);
    if (cudaStreamAddCallback(stream, NoteReached, note.get(), 0) == cudaSuccess) note.release();
    const CUresult result =
        wait_value(stream, reinterpret_cast<CUdeviceptr>(word), number, CU_STREAM_WAIT_VALUE_GEQ);
    if (result != CUDA_SUCCESS) {
      gate->Fail(absl::InternalError(
          absl::StrCat("CUDA: cuStreamWaitValue32: error ", static_cast<int>(result))));
    }
    event.OnDone([gate = gate, number, wait](const absl::Status& outcome) {
      wait->Done();
      gate->Open(number, outcome);
    });
  }

  absl::Status Synchronize() override {
    if (word == nullptr) return gate->failure();
    (void)cudaSetDevice(index);
    const absl::Status status = CudaStatus(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    if (!status.ok()) gate->Fail(status);
    return gate->failure();
  }

  void Fail(const absl::Status& status) override { gate->Fail(status); }
  std::function<void(const absl::Status&)> Failer() const override {
    return [gate = gate](const absl::Status& status) { gate->Fail(status); };
  }

  double waited_seconds() const override { return clock->seconds(); }

  std::string Current() const override {
    return cudaStreamQuery(stream) == cudaErrorNotReady ? "CUDA work" : "";
  }

  // Whoever asks for the handle is about to launch: a launch needs the stream's device to be
  // current on its thread. Where that fails, a kernel has gone wrong, and launches fail too.
  void* native() const override {
    const absl::Status status = CudaStatus(cudaSetDevice(index), "cudaSetDevice");
    if (!status.ok()) gate->Fail(status);
    return stream;
  }

  const int index;
  CudaMemory& memory;
  const std::string name;
  const PFN_cuStreamWaitValue32_v11070 wait_value;
  cudaStream_t stream = nullptr;
  uint32_t* word = nullptr;  // nullptr: the stream could not be made, and has failed
  std::shared_ptr<HostGate> gate;
  const std::shared_ptr<WaitClock> clock = std::make_shared<WaitClock>();
  std::mutex worker_mutex;
  std::unique_ptr<State> worker;  // made when the host is first needed
};

class CudaDevice : public Device {
 public:
  CudaDevice(int index, const cudaDeviceProp& properties, int threads,
             PFN_cuStreamWaitValue32_v11070 wait_value, std::unique_ptr<CudaMemory> source)
      : index_(index),
        description_(absl::StrCat("cuda ", index, ", ", properties.name, ", ",
                                  properties.totalGlobalMem >> 30, " GiB")),
        wait_value_(wait_value),
        threads_(threads),
        source_(std::move(source)),
        memory_(*source_) {}

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string description() const override { return description_; }
  ThreadPool& threads() override { return threads_; }
  MemoryTable& memory() override { return memory_; }
  Stream CreateStream(const std::string& name) override {
    return Stream(std::make_unique<CudaStreamState>(*this, index_, *source_, wait_value_, name));
  }
  absl::Status CopyNow(const void* from, void* to, int64_t bytes) override {
    return source_->Copy(from, to, bytes);
  }

 private:
  const int index_;
  const std::string description_;
  const PFN_cuStreamWaitValue32_v11070 wait_value_;
  ThreadPool threads_;
  const std::unique_ptr<CudaMemory> source_;
  MemoryTable memory_;
};

int CountGpus() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();
  return 0;
}

namespace {

// At least one, or why there is none.
absl::StatusOr<int> UsableGpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  (void)cudaGetLastError();
  return absl::FailedPreconditionError(absl::StrCat(
      "no GPU can be used (", error == cudaSuccess ? "none found" : cudaGetErrorString(error),
      "); see what nvidia-smi says, or run with device = \"cpu\""));
}

std::string VersionText(int version) {
  return version == 0 ? "" : absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

absl::StatusOr<std::vector<GpuFacts>> FindGpus() {
  const absl::StatusOr<int> count = UsableGpus();
  if (!count.ok()) return count.status();
  std::vector<GpuFacts> gpus;
  for (int index = 0; index < *count; ++index) {
    cudaDeviceProp properties;
    absl::Status status =
        CudaStatus(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    char bus[32] = "";
    status.Update(
        CudaStatus(cudaDeviceGetPCIBusId(bus, sizeof(bus), index), "cudaDeviceGetPCIBusId"));
    if (!status.ok()) return status;
    GpuFacts gpu{
        properties.name,  bus, static_cast<int64_t>(properties.totalGlobalMem), properties.major,
        properties.minor, {}};
    for (int peer = 0; peer < *count; ++peer) {
      int reaches = 0;
      if (peer != index && cudaDeviceCanAccessPeer(&reaches, index, peer) == cudaSuccess &&
          reaches != 0) {
        gpu.peers.push_back(peer);
      }
    }
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

CudaVersions FindCudaVersions() {
  int runtime = 0, driver = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  (void)cudaDriverGetVersion(&driver);
  (void)cudaGetLastError();
  return {VersionText(runtime), VersionText(driver)};
}

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int index, int threads) {
  const absl::StatusOr<int> usable = UsableGpus();
  if (!usable.ok()) return usable.status();
  const int count = *usable;
  if (index < 0 || index >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("GPU ", index, " was asked for, but there are ", count, "; the first is 0"));
  }
  cudaDeviceProp properties;
  absl::Status status =
      CudaStatus(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  if (!status.ok()) return status;
  if (properties.major < 8) {
    return absl::FailedPreconditionError(
        absl::StrCat("GPU ", index, " (", properties.name, ") has compute capability ",
                     properties.major, ".", properties.minor, "; 8.0 is the least that is served"));
  }
  status = CudaStatus(cudaSetDevice(index), "cudaSetDevice");
  if (!status.ok()) return status;
  // From the driver by name, so that the program needs no libcuda to start.
  void* wait_value = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  status = CudaStatus(cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", &wait_value, 12000,
                                                       cudaEnableDefault, &found),
                      "cudaGetDriverEntryPointByVersion");
  if (!status.ok()) return status;
  if (found != cudaDriverEntryPointSuccess)
    return absl::FailedPreconditionError("the CUDA driver is too old: 12.0 is the least served");
  absl::StatusOr<std::unique_ptr<CudaMemory>> memory = CudaMemory::Open(index);
  if (!memory.ok()) return memory.status();
  return std::make_unique<CudaDevice>(index, properties, threads,
                                      reinterpret_cast<PFN_cuStreamWaitValue32_v11070>(wait_value),
                                      *std::move(memory));
}

}  // namespace longspan

#else  // LONGSPAN_HAVE_CUDA

namespace longspan {

int CountGpus() { return 0; }

absl::StatusOr<std::vector<GpuFacts>> FindGpus() { return OpenCuda(0, 1).status(); }

CudaVersions FindCudaVersions() { return {}; }

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int, int) {
  return absl::UnimplementedError(
      "this program was built without CUDA; build it with -DLONGSPAN_CUDA=ON, or run with device = "
      "\"cpu\"");
}

}  // namespace longspan

#endif  // LONGSPAN_HAVE_CUDA
