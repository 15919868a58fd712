#include "kernels/cuda/embedding.cuh"

#include "kernels/cuda/rows.cuh"

namespace longspan::cuda {
namespace {

// Stops the kernel, and with it the stream.
__device__ void CheckId(int id, int64_t entries) {
  if (id < 0 || id >= entries) __trap();
}

template <typename T, typename Out>
struct LookUp {
  const int* ids;
  Rows<const T> table;
  int64_t entries;
  Rows<Out> out;
  bool accumulate;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    const int id = ids[row];
    CheckId(id, entries);
    Pack<kLanes> entry = Load<kLanes>(table[id] + c);
    if (accumulate) {
      const Pack<kLanes> old = Load<kLanes>(out[row] + c);
#pragma unroll
      for (int k = 0; k < kLanes; ++k) entry.lane[k] += old.lane[k];
    }
    Store(entry, out[row] + c);
  }
};

constexpr int kThreads = 256;
constexpr int kPacks = 4;  // of a thread

// The block of a row that is the first with its id adds up all rows with that id, in their order,
// while their sum stays in registers. The other blocks end as soon as they have seen that they are
// not the first. blockIdx.y: kThreads * kPacks packs of columns.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kThreads)
    AddToTableKernel(const int* ids, int64_t rows, Rows<const T> dout, int64_t width,
                     Rows<float> table, int64_t entries) {
  __shared__ int found[kThreads];
  __shared__ int warp_counts[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int id = ids[row];
  CheckId(id, entries);
  for (int64_t begin = 0; begin < row; begin += kThreads) {
    const int64_t at = begin + thread;
    if (__syncthreads_or(at < row && ids[at] == id)) return;
  }

  const int64_t first = (static_cast<int64_t>(blockIdx.y) * kThreads * kPacks + thread) * kLanes;
  const int64_t step = static_cast<int64_t>(kThreads) * kLanes;
  Pack<kLanes> sum[kPacks] = {};
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (first + i * step < width) sum[i] = Load<kLanes>(table[id] + first + i * step);
  }
  for (int64_t begin = row; begin < rows; begin += kThreads) {
    // The rows of this stretch that have the id, in order.
    const int64_t at = begin + thread;
    const bool mine = at < rows && ids[at] == id;
    const unsigned votes = __ballot_sync(0xffffffffu, mine);
    if (lane == 0) warp_counts[warp] = __popc(votes);
    __syncthreads();
    int before = 0, count = 0;
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) before += warp_counts[w];
      count += warp_counts[w];
    }
    if (mine) found[before + __popc(votes & ((1u << lane) - 1))] = thread;
    __syncthreads();
    for (int j = 0; j < count; ++j) {
      const T* const from = dout[begin + found[j]];
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        if (first + i * step >= width) continue;
        const Pack<kLanes> more = Load<kLanes>(from + first + i * step);
#pragma unroll
        for (int k = 0; k < kLanes; ++k) sum[i].lane[k] += more.lane[k];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (first + i * step < width) Store(sum[i], table[id] + first + i * step);
  }
}

template <typename T, int kLanes>
cudaError_t AddRowsToTable(const TensorView& ids, const TensorView& dout, const TensorView& dtable,
                           cudaStream_t stream) {
  const int64_t rows = ids.dim(0), width = dtable.dim(1);
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>(CeilDivide(width, kThreads * kPacks * kLanes)));
  return Launch(AddToTableKernel<T, kLanes>, grid, kThreads, 0, stream,
                static_cast<const int*>(ids.raw()), rows, RowsOf<const T>(dout), width,
                RowsOf<float>(dtable), dtable.dim(0));
}

}  // namespace

cudaError_t LookUpRows(const TensorView& ids, const TensorView& table, bool accumulate,
                       const TensorView& out, cudaStream_t stream) {
  const int lanes = LanesOf(table, out);
  return WithType(table.dtype(), [&](auto table_type) {
    return WithType(out.dtype(), [&](auto out_type) {
      using T = decltype(table_type);
      using Out = decltype(out_type);
      return ForRows(out.dim(0), out.dim(1), lanes,
                     LookUp<T, Out>{static_cast<const int*>(ids.raw()), RowsOf<const T>(table),
                                    table.dim(0), RowsOf<Out>(out), accumulate},
                     stream);
    });
  });
}

cudaError_t AddToTable(const TensorView& ids, const TensorView& dout, const TensorView& dtable,
                       cudaStream_t stream) {
  if (dout.empty()) return cudaSuccess;
  const bool packs = LanesOf(dout, dtable) > 1 && TakesPacks(dout, 4) && TakesPacks(dtable, 4);
  if (dout.dtype() == DType::kF32) {
    return packs ? AddRowsToTable<float, 4>(ids, dout, dtable, stream)
                 : AddRowsToTable<float, 1>(ids, dout, dtable, stream);
  }
  return packs ? AddRowsToTable<bf16, 4>(ids, dout, dtable, stream)
               : AddRowsToTable<bf16, 1>(ids, dout, dtable, stream);
}

}  // namespace longspan::cuda
