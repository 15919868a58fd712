#include "kernels/cuda/stream_memory.h"

#include <algorithm>

namespace longspan::cuda {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kSmallestBlock = int64_t{1} << 20;
constexpr char kTag[] = "operators";

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

StreamMemory::~StreamMemory() {
  // The table may be gone by now: it lives as long as the device.
  for (const Block& block : blocks_) (void)cudaFree(block.data);
  (void)cudaFree(matrix_products_);
}

cudaError_t StreamMemory::Grow(int64_t bytes) {
  Block block;
  block.bytes = std::max({bytes, wanted_, kSmallestBlock});
  const cudaError_t error = cudaMallocAsync(&block.data, static_cast<size_t>(block.bytes), stream_);
  if (error != cudaSuccess) return error;
  table_.Add(kTag, block.bytes);
  blocks_.push_back(block);
  return cudaSuccess;
}

cudaError_t StreamMemory::Take(int64_t bytes, void** taken) {
  *taken = nullptr;
  bytes = Aligned(bytes);
  while (at_.block < blocks_.size() && at_.used + bytes > blocks_[at_.block].bytes) {
    ++at_.block;
    at_.used = 0;
  }
  if (at_.block == blocks_.size()) {
    const cudaError_t error = Grow(bytes);
    if (error != cudaSuccess) return error;
  }
  *taken = static_cast<char*>(blocks_[at_.block].data) + at_.used;
  at_.used += bytes;
  return cudaSuccess;
}

void StreamMemory::EndCall() {
  at_ = {};
  if (blocks_.size() <= 1) return;
  wanted_ = 0;
  for (const Block& block : blocks_) {
    wanted_ += block.bytes;
    table_.Remove(kTag, block.bytes);
    (void)cudaFreeAsync(block.data, stream_);
  }
  blocks_.clear();
}

cudaError_t StreamMemory::MatrixProductWorkspace(void** workspace) {
  if (matrix_products_ == nullptr) {
    const cudaError_t error = cudaMallocAsync(&matrix_products_, kMatrixProductBytes, stream_);
    if (error != cudaSuccess) return error;
    table_.Add(kTag, kMatrixProductBytes);
  }
  *workspace = matrix_products_;
  return cudaSuccess;
}

}  // namespace longspan::cuda
