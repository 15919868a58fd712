#include "kernels/cuda/upload.cuh"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/launch.cuh"

namespace longspan::cuda {
namespace {

// 3.5 KiB: a launch takes 4 KiB of parameters.
constexpr int kWords = 448;

struct Words {
  uint64_t word[kWords];
};

__global__ void WriteKernel(const __grid_constant__ Words words, int count, uint64_t* target) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) target[i] = words.word[i];
}

}  // namespace

cudaError_t UploadBytes(const void* source, int64_t bytes, void* target, cudaStream_t stream) {
  constexpr int64_t kMost = sizeof(Words);
  for (int64_t begin = 0; begin < bytes; begin += kMost) {
    const int64_t some = std::min(kMost, bytes - begin);
    Words part = {};
    std::memcpy(part.word, static_cast<const char*>(source) + begin, static_cast<size_t>(some));
    const cudaError_t error =
        Launch(WriteKernel, 1, kWords, 0, stream, part, static_cast<int>((some + 7) / 8),
               reinterpret_cast<uint64_t*>(static_cast<char*>(target) + begin));
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace longspan::cuda
