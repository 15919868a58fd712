#include "sharded_state.h"

#include <algorithm>
#include <cstring>

namespace longspan {
namespace {

struct Shape {
  const char* group;
  const char* tensor;
  DType dtype;
  std::vector<int64_t> dims;
};

// Buckets of one dtype each.
std::vector<std::vector<Shape>> Buckets(int64_t scale) {
  return {{{"/parameters", "output.weight", DType::kF32, {17 * scale, 7}},
           {"/parameters", "norm.weight", DType::kF32, {7}},
           {"/parameters", "scalar", DType::kF32, {}}},
          {{"/parameters", "layers.0.weight", DType::kF32, {5 * scale, 3, 11}}},
          {{"/optimizer/first_moment", "output.weight", DType::kF32, {17 * scale, 7}},
           {"/optimizer/first_moment", "norm.weight", DType::kF32, {7}}},
          {{"/optimizer/compact", "output.weight", DType::kBF16, {17 * scale, 7}}},
          {{"/counts", "bytes", DType::kU8, {13 * scale}}},
          {{"/counts", "steps", DType::kI64, {3}}},
          {{"/counts", "none", DType::kF64, {0, 4}}}};
}

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Bytes [begin, end) of a tensor.
void Fill(const StateRegion& region, int64_t step, char* out) {
  uint64_t seed = static_cast<uint64_t>(step) + 1;
  for (char c : region.group + "/" + region.tensor) seed = Mix(seed ^ static_cast<uint8_t>(c));
  const int64_t begin = region.flat_begin * SizeOf(region.dtype);
  const int64_t end = region.flat_end * SizeOf(region.dtype);
  uint64_t word = 0;
  for (int64_t byte = begin; byte < end; ++byte) {
    if (byte == begin || byte % 8 == 0) word = Mix(seed ^ static_cast<uint64_t>(byte / 8));
    out[byte - begin] = static_cast<char>(word >> (byte % 8 * 8));
  }
}

}  // namespace

ShardedState::ShardedState(int rank, int ranks, int64_t step, int64_t scale) {
  for (const std::vector<Shape>& bucket : Buckets(scale)) {
    int64_t total = 0;
    for (const Shape& shape : bucket) {
      int64_t elements = 1;
      for (int64_t dim : shape.dims) elements *= dim;
      total += elements;
    }
    const int64_t unit = ranks * 4;
    const int64_t shard = (total + unit - 1) / unit * 4;
    int64_t at = 0;  // where the tensor starts in the bucket
    for (const Shape& shape : bucket) {
      int64_t elements = 1;
      for (int64_t dim : shape.dims) elements *= dim;
      StateRegion region;
      region.group = shape.group;
      region.tensor = shape.tensor;
      region.dtype = shape.dtype;
      region.global_shape = shape.dims;
      region.flat_begin = std::clamp<int64_t>(rank * shard - at, 0, elements);
      region.flat_end = std::clamp<int64_t>((rank + 1) * shard - at, 0, elements);
      memory_.emplace_back((region.flat_end - region.flat_begin) * SizeOf(region.dtype));
      region.data = memory_.back().data();
      Fill(region, step, memory_.back().data());
      regions_.push_back(region);
      at += elements;
    }
  }
}

void ShardedState::Clear() {
  for (std::vector<char>& bytes : memory_) std::fill(bytes.begin(), bytes.end(), '\x5a');
}

std::string ShardedState::DifferenceFrom(int64_t step) const {
  for (size_t i = 0; i < regions_.size(); ++i) {
    std::vector<char> expected(memory_[i].size());
    Fill(regions_[i], step, expected.data());
    for (size_t byte = 0; byte < expected.size(); ++byte) {
      if (expected[byte] != memory_[i][byte]) {
        return regions_[i].group + "/" + regions_[i].tensor + " differs at byte " +
               std::to_string(byte) + " of elements [" + std::to_string(regions_[i].flat_begin) +
               ", " + std::to_string(regions_[i].flat_end) + ") from step " + std::to_string(step);
      }
    }
  }
  return "";
}

std::string StateMetadata(int64_t step) {
  return "{\"model\":{\"width\":7},\"cursor\":" + std::to_string(step * 10) + "}";
}

}  // namespace longspan
