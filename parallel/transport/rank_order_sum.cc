#include "parallel/transport/rank_order_sum.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/device/check.h"

namespace longspan {
namespace {

// One task of the pool; and, inside it, what stays in the first-level cache while all inputs are
// added to it.
constexpr int64_t kTaskElements = 1 << 16;
constexpr int64_t kBlockElements = 1024;

float Value(float x) { return x; }
double Value(double x) { return x; }
float Value(uint16_t bf16) { return std::bit_cast<float>(uint32_t{bf16} << 16); }

template <typename Part, typename T>
void SumRange(const std::vector<const void*>& inputs, int64_t begin, int64_t end, T* output) {
  T sum[kBlockElements];
  for (int64_t block = begin; block < end; block += kBlockElements) {
    const int64_t count = std::min(kBlockElements, end - block);
    const Part* first = static_cast<const Part*>(inputs[0]) + block;
    for (int64_t i = 0; i < count; ++i) sum[i] = Value(first[i]);
    for (size_t input = 1; input < inputs.size(); ++input) {
      const Part* other = static_cast<const Part*>(inputs[input]) + block;
      for (int64_t i = 0; i < count; ++i) sum[i] += Value(other[i]);
    }
    std::copy(sum, sum + count, output + block);
  }
}

template <typename Part, typename T>
void Sum(const std::vector<const void*>& inputs, int64_t elements, T* output, ThreadPool& threads) {
  const int64_t tasks = (elements + kTaskElements - 1) / kTaskElements;
  threads.ParallelFor(tasks, [&](int64_t task) {
    const int64_t begin = task * kTaskElements;
    SumRange<Part>(inputs, begin, std::min(elements, begin + kTaskElements), output);
  });
}

}  // namespace

void SumInRankOrder(const std::vector<const void*>& inputs, DType dtype, int64_t elements,
                    void* output, ThreadPool& threads) {
  LONGSPAN_CHECK(!inputs.empty(), "a sum needs an input");
  if (dtype == DType::kF32) {
    Sum<float>(inputs, elements, static_cast<float*>(output), threads);
  } else if (dtype == DType::kBF16) {
    Sum<uint16_t>(inputs, elements, static_cast<float*>(output), threads);
  } else {
    LONGSPAN_CHECK(dtype == DType::kF64, "reductions are of f32, f64 or bf16");
    Sum<double>(inputs, elements, static_cast<double*>(output), threads);
  }
}

}  // namespace longspan
