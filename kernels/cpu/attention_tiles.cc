#include "kernels/cpu/attention_tiles.h"

#include <hwy/aligned_allocator.h>

#include <cstring>

namespace longspan::cpu {

int64_t AttentionBlockRows(int64_t head_dim) {
  // Five packed forms of a block should stay in a second-level cache of 512 KiB.
  return head_dim <= 96 ? 128 : 64;
}

float* AttentionScratch(int64_t floats) {
  thread_local hwy::AlignedFreeUniquePtr<float[]> memory;
  thread_local int64_t size = 0;
  if (size < floats) {
    memory = hwy::AllocateAligned<float>(static_cast<size_t>(floats));
    LONGSPAN_CHECK(memory != nullptr, "no memory for the scratch tiles of attention");
    size = floats;
  }
  return memory.get();
}

void PackRows(const float* x, int64_t stride, int64_t count, int64_t head_dim, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(out + i * head_dim, x + i * stride, head_dim * sizeof(float));
  }
}

}  // namespace longspan::cpu
