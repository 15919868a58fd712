// A stand-in for the CUDA runtime, for tests on machines without a GPU: the C functions that the
// product calls, under their own names, over host memory and threads. A program that links these
// objects gets them instead of the runtime library's, because objects come before archives.
//
// It is stricter than a GPU where that finds faults: streams run on threads of their own and are
// held back now and then, device memory is filled with NaN patterns when it is given and when it is
// taken back, writes around it are found, and copies must name the right kind of memory.
// What it cannot show: speed, races between blocks that run together, reads of device memory by
// the host.
//
// In the environment:
//   LONGSPAN_STAND_IN_DEVICES  how many there are; else 2
//   LONGSPAN_STAND_IN_MEMORY   bytes of each; else 4 GiB
//   LONGSPAN_STAND_IN_PEAK     a file in which the program says at its end how many bytes of a
//                              device's memory it has had at most
//   LONGSPAN_STAND_IN_FAULT    a file; from when it is there, the next kernel reads an illegal
//                              address, which ends all use of the devices as a GPU does
#ifndef LONGSPAN_TESTS_GPU_STAND_IN_RUNTIME_H_
#define LONGSPAN_TESTS_GPU_STAND_IN_RUNTIME_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <string>

namespace longspan::stand_in {

// What a program has asked for so far, in all threads.
struct Counts {
  int64_t allocations = 0;  // cudaMalloc and the like, from no pool
  // From a stream's pool; what a step may do at first, but should not go on doing.
  int64_t pool_allocations = 0;
  // Calls that make the calling thread wait, or that may: synchronisations, cudaMemcpy, copies from
  // or to memory that is not pinned.
  int64_t waits = 0;
  // What holds a stream until the host has done something: callbacks, host functions, waits at
  // words that the host raised. Counted when the stream is through.
  int64_t host_holds = 0;
  // What holds a stream until another one is so far: cudaStreamWaitEvent, and waits at words that a
  // stream raised.
  int64_t stream_holds = 0;
  int64_t launches = 0;
};
Counts CountsSoFar();
// Of the waits those of the calling thread.
int64_t WaitsOfThisThread();

// What has not been given back, one line each, and writes around or into memory that is not theirs.
// Empty when all is well. Waits for all streams.
std::string Faults();
// Forgets the writes that were found so far.
void ClearFaults();

// For what queues work as a library does: `work` runs on the stream's thread.
cudaError_t Enqueue(cudaStream_t stream, std::function<void()> work);

}  // namespace longspan::stand_in

// The same for libraries that are loaded at run time.
extern "C" int LongspanStandInEnqueue(cudaStream_t stream, void (*work)(void*), void* data);

#endif  // LONGSPAN_TESTS_GPU_STAND_IN_RUNTIME_H_
