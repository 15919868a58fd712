// How a grid of thread blocks runs on the CPU: the blocks one after another in a scrambled order,
// the threads of a block as fibers of one thread of the operating system. Between two barriers the
// threads of a block run in an order that changes every time, so that a barrier that is missing
// shows. Waits that can never end stop the program with a message.
#ifndef LONGSPAN_TESTS_GPU_STAND_IN_GRID_H_
#define LONGSPAN_TESTS_GPU_STAND_IN_GRID_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

namespace longspan::stand_in {

constexpr int kWarpLanes = 32;

// Checks the extents as a GPU's driver does, then queues the grid on the stream.
cudaError_t LaunchGrid(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                       std::function<void()> kernel);

// Runs all blocks on the calling thread.
void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

// For kernels, on the fiber of a thread of the block.
char* LaunchShared();
void BlockBarrier();
void WarpBarrier(unsigned mask);
// Gives every lane of `mask` what the lane chosen by `source` put in; 8 bytes at most. A source
// outside [0, 32) or of a lane that is not in the mask stops the program.
void Exchange(unsigned mask, const void* mine, void* theirs, size_t bytes, int source);
int Lane();

}  // namespace longspan::stand_in

#endif  // LONGSPAN_TESTS_GPU_STAND_IN_GRID_H_
