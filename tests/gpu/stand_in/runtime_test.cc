// That the stand-in finds the faults that it is there to find.
#include "runtime.h"

#include <cudaTypedefs.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "device_language.h"
#include "kernels/cuda/launch.cuh"

namespace longspan::stand_in {
namespace {

class StandInTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  void TearDown() override {
    ASSERT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
    EXPECT_EQ(Faults(), "");
  }
  template <typename T>
  T* OnDevice(int64_t count) {
    void* at = nullptr;
    EXPECT_EQ(cudaMalloc(&at, static_cast<size_t>(count) * sizeof(T)), cudaSuccess);
    return static_cast<T*>(at);
  }
  cudaStream_t stream_ = nullptr;
};

// Every thread adds its warp's sum to that of its block, through shared memory.
void BlockSums(const int* values, int* sums) {
  __shared__ int warps[32];
  int value = values[blockIdx.x * blockDim.x + threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x != 0) return;
  int sum = 0;
  for (unsigned i = 0; i < blockDim.x / 32; ++i) sum += warps[i];
  sums[blockIdx.x] = sum;
}

TEST_F(StandInTest, RunsBlocksWithBarriersAndShuffles) {
  int* const values = OnDevice<int>(4 * 96);
  int* const sums = OnDevice<int>(4);
  std::vector<int> numbers(4 * 96), got(4);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int>(i * i % 101);
  ASSERT_EQ(cudaMemcpy(values, numbers.data(), numbers.size() * 4, cudaMemcpyHostToDevice),
            cudaSuccess);
  ASSERT_EQ(cuda::Launch(BlockSums, 4, 96, 0, stream_, values, sums), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(got.data(), sums, 16, cudaMemcpyDeviceToHost), cudaSuccess);
  for (int block = 0; block < 4; ++block) {
    int wanted = 0;
    for (int i = 0; i < 96; ++i) wanted += numbers[block * 96 + i];
    EXPECT_EQ(got[block], wanted);
  }
  EXPECT_EQ(cudaFree(values), cudaSuccess);
  EXPECT_EQ(cudaFree(sums), cudaSuccess);
}

// Without the barrier between writing and reading.
void Reversed(int* at) {
  __shared__ int values[256];
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  at[threadIdx.x] = values[255 - threadIdx.x];
}

TEST_F(StandInTest, AMissingBarrierShows) {
  int* const at = OnDevice<int>(256);
  ASSERT_EQ(cuda::Launch(Reversed, 1, 256, 0, stream_, at), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  int wrong = 0;
  for (int i = 0; i < 256; ++i) wrong += at[i] != 255 - i ? 1 : 0;
  EXPECT_GT(wrong, 0);
  EXPECT_EQ(cudaFree(at), cudaSuccess);
}

void OneLaneStays(int* at) {
  if (threadIdx.x == 7) return;
  *at = __shfl_xor_sync(0xffffffffu, 1, 1);
}

TEST_F(StandInTest, AShuffleWithAThreadThatEndedStopsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  int at = 0;
  EXPECT_DEATH(RunGrid(1, 32, 0, [&] { OneLaneStays(&at); }), "lanes of a warp wait");
}

TEST_F(StandInTest, RefusesBlocksThatAreTooLarge) {
  int* const none = nullptr;
  EXPECT_EQ(cuda::Launch(Reversed, 1, 1025, 0, stream_, none), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cuda::Launch(Reversed, 0, 32, 0, stream_, none), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cuda::Launch(Reversed, dim3(1, 65536), 32, 0, stream_, none),
            cudaErrorInvalidConfiguration);
}

TEST_F(StandInTest, StreamsRunOnTheirOwn) {
  std::atomic<bool> open{false};
  ASSERT_EQ(Enqueue(stream_,
                    [&] {
                      while (!open) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                    }),
            cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(stream_), cudaErrorNotReady);
  cudaEvent_t event = nullptr;
  cudaStream_t other = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(other, event, 0), cudaSuccess);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(cudaStreamQuery(other), cudaErrorNotReady);
  open = true;
  EXPECT_EQ(cudaStreamSynchronize(other), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

TEST_F(StandInTest, TellsWhoHoldsAStream) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  ASSERT_EQ(cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", &entry, 12000,
                                             cudaEnableDefault, &found),
            cudaSuccess);
  const auto wait = reinterpret_cast<PFN_cuStreamWaitValue32_v11070>(entry);
  ASSERT_EQ(cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", &entry, 12000,
                                             cudaEnableDefault, &found),
            cudaSuccess);
  const auto write = reinterpret_cast<PFN_cuStreamWriteValue32_v11070>(entry);
  cudaStream_t other = nullptr;
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  void* pinned = nullptr;
  ASSERT_EQ(cudaHostAlloc(&pinned, 64, 0), cudaSuccess);
  auto* const word = static_cast<uint32_t*>(pinned);
  __atomic_store_n(word, 0u, __ATOMIC_RELEASE);
  const auto at = reinterpret_cast<CUdeviceptr>(pinned);
  auto holds = [&, before = CountsSoFar()]() mutable {
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    const Counts after = CountsSoFar();
    const std::pair<int64_t, int64_t> both(after.host_holds - before.host_holds,
                                           after.stream_holds - before.stream_holds);
    before = after;
    return both;
  };
  ASSERT_EQ(wait(stream_, at, 1, CU_STREAM_WAIT_VALUE_GEQ), CUDA_SUCCESS);
  __atomic_store_n(word, 1u, __ATOMIC_RELEASE);
  EXPECT_EQ(holds(), (std::pair<int64_t, int64_t>(1, 0)));
  ASSERT_EQ(wait(stream_, at, 2, CU_STREAM_WAIT_VALUE_GEQ), CUDA_SUCCESS);
  ASSERT_EQ(write(other, at, 2, CU_STREAM_WRITE_VALUE_DEFAULT), CUDA_SUCCESS);
  EXPECT_EQ(holds(), (std::pair<int64_t, int64_t>(0, 1)));
  ASSERT_EQ(cudaEventRecord(event, other), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(stream_, event, 0), cudaSuccess);
  EXPECT_EQ(holds(), (std::pair<int64_t, int64_t>(0, 1)));
  ASSERT_EQ(cudaLaunchHostFunc(
                stream_, [](void*) {}, nullptr),
            cudaSuccess);
  EXPECT_EQ(holds(), (std::pair<int64_t, int64_t>(1, 0)));
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

TEST_F(StandInTest, ReportsWhatIsWrittenWhereItShouldNotBe) {
  char* const at = OnDevice<char>(1000);
  const char kept = at[1000];
  at[1000] = 1;
  EXPECT_NE(Faults().find("written behind"), std::string::npos);
  EXPECT_NE(Faults().find("not given back"), std::string::npos);
  at[1000] = kept;
  EXPECT_EQ(cudaFree(at), cudaSuccess);
  EXPECT_EQ(cudaFree(at), cudaErrorInvalidValue);
  at[5] = 1;
  EXPECT_NE(Faults().find("written after it was freed"), std::string::npos);
  at[5] = at[6];
  ClearFaults();
}

TEST_F(StandInTest, MemoryOfAPoolIsGoneWhenTheStreamHasPassed) {
  void* at = nullptr;
  ASSERT_EQ(cudaMallocAsync(&at, 64, stream_), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(at, 3, 64, stream_), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(at, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_NE(static_cast<char*>(at)[0], 3);
}

TEST_F(StandInTest, CopiesMustNameTheRightMemory) {
  char* const at = OnDevice<char>(64);
  char here[65] = {};
  EXPECT_EQ(cudaMemcpy(at, here, 64, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(at, here, 65, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  const int64_t waits = CountsSoFar().waits;
  EXPECT_EQ(cudaMemcpyAsync(at, here, 64, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  EXPECT_EQ(CountsSoFar().waits, waits + 1) << "pageable memory may make the caller wait";
  void* pinned = nullptr;
  ASSERT_EQ(cudaHostAlloc(&pinned, 64, 0), cudaSuccess);
  std::memset(pinned, 1, 64);
  EXPECT_EQ(cudaMemcpyAsync(at, pinned, 64, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  EXPECT_EQ(CountsSoFar().waits, waits + 1);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(at[63], 1);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
  EXPECT_EQ(cudaFree(at), cudaSuccess);
}

TEST_F(StandInTest, CallbacksMayNotCallCuda) {
  cudaError_t error = cudaSuccess;
  ASSERT_EQ(cudaLaunchHostFunc(
                stream_,
                [](void* data) {
                  void* at = nullptr;
                  *static_cast<cudaError_t*>(data) = cudaMalloc(&at, 16);
                },
                &error),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(error, cudaErrorNotPermitted);
}

}  // namespace
}  // namespace longspan::stand_in
