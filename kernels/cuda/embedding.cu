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

// Gradients: rows are sorted by id, those of one id in their order, so that each id finds its rows
// side by side. The sort goes digit by digit of the ids, the lowest first, and keeps the order of
// equal digits.
struct SortedRow {
  int id, row;
};

constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;  // and threads of a block
constexpr int kTile = 8 * kDigits;        // rows of a block
constexpr int kScanThreads = 1024;

struct InOrder {
  const int* ids;
  int64_t entries;
  __device__ SortedRow operator[](int64_t at) const {
    CheckId(ids[at], entries);
    return {ids[at], static_cast<int>(at)};
  }
};

__device__ int DigitOf(SortedRow row, int shift) { return row.id >> shift & (kDigits - 1); }

// counts[digit][block]: rows of the block with that digit.
template <typename Source>
__global__ void __launch_bounds__(kDigits)
    CountDigitsKernel(Source source, int64_t rows, int shift, int* counts) {
  __shared__ int digits[kDigits];
  const int thread = static_cast<int>(threadIdx.x);
  digits[thread] = 0;
  __syncthreads();
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t end = begin + kTile < rows ? begin + kTile : rows;
  for (int64_t at = begin + thread; at < end; at += kDigits)
    atomicAdd(&digits[DigitOf(source[at], shift)], 1);
  __syncthreads();
  counts[static_cast<int64_t>(thread) * gridDim.x + blockIdx.x] = digits[thread];
}

// counts[i] = counts[0] + ... + counts[i - 1], by one block: each thread has a stretch.
__global__ void __launch_bounds__(kScanThreads) ScanKernel(int* counts, int64_t count) {
  __shared__ int sums[kScanThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t each = (count + kScanThreads - 1) / kScanThreads;
  const int64_t begin = thread * each < count ? thread * each : count;
  const int64_t end = begin + each < count ? begin + each : count;
  int sum = 0;
  for (int64_t i = begin; i < end; ++i) sum += counts[i];
  sums[thread] = sum;
  __syncthreads();
  for (int distance = 1; distance < kScanThreads; distance *= 2) {
    const int more = thread >= distance ? sums[thread - distance] : 0;
    __syncthreads();
    sums[thread] += more;
    __syncthreads();
  }
  int before = sums[thread] - sum;
  for (int64_t i = begin; i < end; ++i) {
    const int own = counts[i];
    counts[i] = before;
    before += own;
  }
}

// sorted: the rows by that digit. places: what ScanKernel made of the counts.
template <typename Source>
__global__ void __launch_bounds__(kDigits)
    PlaceByDigitKernel(Source source, int64_t rows, int shift, const int* places,
                       SortedRow* sorted) {
  constexpr int kWarps = kDigits / kWarp;
  __shared__ int next[kDigits];
  __shared__ int counts[kWarps][kDigits];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  next[thread] = places[static_cast<int64_t>(thread) * gridDim.x + blockIdx.x];
  for (int begin = 0; begin < kTile; begin += kDigits) {
    for (int w = 0; w < kWarps; ++w) counts[w][thread] = 0;
    __syncthreads();
    const int64_t at = static_cast<int64_t>(blockIdx.x) * kTile + begin + thread;
    const bool there = at < rows;
    SortedRow row = {};
    if (there) row = source[at];
    const int digit = DigitOf(row, shift);
    // The lanes of this warp that have the digit too.
    unsigned same = __ballot_sync(0xffffffffu, there);
#pragma unroll
    for (int bit = 0; bit < kDigitBits; ++bit) {
      const bool is_set = (digit >> bit & 1) != 0;
      const unsigned votes = __ballot_sync(0xffffffffu, is_set);
      same &= is_set ? votes : ~votes;
    }
    const int in_front = __popc(same & ((1u << lane) - 1));
    if (there && in_front == 0) counts[warp][digit] = __popc(same);
    __syncthreads();
    if (there) {
      int place = next[digit] + in_front;
      for (int w = 0; w < warp; ++w) place += counts[w][digit];
      sorted[place] = row;
    }
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) next[thread] += counts[w][thread];
  }
}

template <typename Source>
cudaError_t SortByDigit(const Source& source, int64_t rows, int shift, int* counts,
                        SortedRow* sorted, cudaStream_t stream) {
  const unsigned tiles = static_cast<unsigned>(CeilDivide(rows, kTile));
  cudaError_t error =
      Launch(CountDigitsKernel<Source>, tiles, kDigits, 0, stream, source, rows, shift, counts);
  if (error != cudaSuccess) return error;
  error =
      Launch(ScanKernel, 1, kScanThreads, 0, stream, counts, static_cast<int64_t>(tiles) * kDigits);
  if (error != cudaSuccess) return error;
  return Launch(PlaceByDigitKernel<Source>, tiles, kDigits, 0, stream, source, rows, shift, counts,
                sorted);
}

constexpr int kThreads = 256;
constexpr int kPacks = 4;  // of a thread
// Rows of one id that a block sums on its own, so that an id that many rows have does not keep one
// block busy when the others are done.
constexpr int kPiece = 64;

// The columns of a thread: kPacks packs, blockDim.x packs apart.
template <int kLanes>
struct Columns {
  int64_t first, step, width;
  Pack<kLanes> sum[kPacks] = {};

  __device__ explicit Columns(int64_t row_width) : width(row_width) {
    step = static_cast<int64_t>(blockDim.x) * kLanes;
    first = (static_cast<int64_t>(blockIdx.y) * blockDim.x * kPacks + threadIdx.x) * kLanes;
  }
  template <typename T>
  __device__ void Add(const T* row) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (first + i * step >= width) continue;
      const Pack<kLanes> more = Load<kLanes>(row + first + i * step);
#pragma unroll
      for (int k = 0; k < kLanes; ++k) sum[i].lane[k] += more.lane[k];
    }
  }
  __device__ void Write(float* row) const {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (first + i * step < width) Store(sum[i], row + first + i * step);
    }
  }
};

// pieces[p / kPiece] = the sum of rows [p, p + kPiece), where these begin a piece of an id's rows
// that is not the last. Pieces do not overlap, so no two have a place in common.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kThreads)
    SumPiecesKernel(const SortedRow* sorted, int64_t rows, Rows<const T> dout, int64_t width,
                    float* pieces) {
  const int64_t begin = blockIdx.x;
  const int id = sorted[begin].id;
  if (begin + kPiece >= rows || sorted[begin + kPiece].id != id) return;
  int64_t first = 0;  // row with this id
  for (int64_t known = begin; first < known;) {
    const int64_t middle = (first + known) / 2;
    if (sorted[middle].id < id) {
      first = middle + 1;
    } else {
      known = middle;
    }
  }
  if ((begin - first) % kPiece != 0) return;
  Columns<kLanes> columns(width);
#pragma unroll 4
  for (int i = 0; i < kPiece; ++i) columns.Add(dout[sorted[begin + i].row]);
  columns.Write(pieces + begin / kPiece * width);
}

// table[id] += its pieces in order, then the rows behind them. The block of an id's first row.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kThreads)
    AddToTableKernel(const SortedRow* sorted, int64_t rows, Rows<const T> dout, int64_t width,
                     const float* pieces, Rows<float> table) {
  int64_t at = blockIdx.x;
  const int id = sorted[at].id;
  if (at > 0 && sorted[at - 1].id == id) return;
  Columns<kLanes> columns(width);
  columns.Add(table[id]);
  for (; at + kPiece < rows && sorted[at + kPiece].id == id; at += kPiece)
    columns.Add(pieces + at / kPiece * width);
  for (; at < rows && sorted[at].id == id; ++at) columns.Add(dout[sorted[at].row]);
  columns.Write(table[id]);
}

// Where in its memory AddToTable has what, in bytes.
struct Scratch {
  int64_t sorted[2], pieces, counts, bytes = 0;

  Scratch(int64_t rows, int64_t width) {
    for (int64_t& at : sorted) at = Take(rows * static_cast<int64_t>(sizeof(SortedRow)));
    pieces = Take(CeilDivide(rows, kPiece) * width * static_cast<int64_t>(sizeof(float)));
    counts = Take(CeilDivide(rows, kTile) * kDigits * static_cast<int64_t>(sizeof(int)));
  }

 private:
  int64_t Take(int64_t more) {
    const int64_t at = bytes;
    bytes += CeilDivide(more, 16) * 16;
    return at;
  }
};

template <typename T, int kLanes>
cudaError_t SumRows(const SortedRow* sorted, const TensorView& dout, const TensorView& dtable,
                    float* pieces, cudaStream_t stream) {
  const int64_t rows = dout.dim(0), width = dtable.dim(1), packs = CeilDivide(width, kLanes);
  const unsigned threads = ThreadsFor(CeilDivide(packs, kPacks), kThreads);
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>(CeilDivide(packs, threads * kPacks)));
  const Rows<const T> from = RowsOf<const T>(dout);
  const cudaError_t error = Launch(SumPiecesKernel<T, kLanes>, grid, threads, 0, stream, sorted,
                                   rows, from, width, pieces);
  if (error != cudaSuccess) return error;
  return Launch(AddToTableKernel<T, kLanes>, grid, threads, 0, stream, sorted, rows, from, width,
                pieces, RowsOf<float>(dtable));
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

int64_t AddToTableBytes(int64_t rows, int64_t width) { return Scratch(rows, width).bytes; }

cudaError_t AddToTable(const TensorView& ids, const TensorView& dout, const TensorView& dtable,
                       char* memory, cudaStream_t stream) {
  if (dout.empty()) return cudaSuccess;
  const int64_t rows = dout.dim(0), entries = dtable.dim(0);
  const Scratch scratch(rows, dtable.dim(1));
  SortedRow* const buffers[] = {reinterpret_cast<SortedRow*>(memory + scratch.sorted[0]),
                                reinterpret_cast<SortedRow*>(memory + scratch.sorted[1])};
  float* const pieces = reinterpret_cast<float*>(memory + scratch.pieces);
  int* const counts = reinterpret_cast<int*>(memory + scratch.counts);
  const SortedRow* sorted = buffers[0];
  cudaError_t error = SortByDigit(InOrder{static_cast<const int*>(ids.raw()), entries}, rows, 0,
                                  counts, buffers[0], stream);
  int to = 1;
  for (int shift = kDigitBits; error == cudaSuccess && (entries - 1) >> shift > 0;
       shift += kDigitBits) {
    error = SortByDigit(sorted, rows, shift, counts, buffers[to], stream);
    sorted = buffers[to];
    to = 1 - to;
  }
  if (error != cudaSuccess) return error;
  const bool packs = LanesOf(dout, dtable) > 1 && TakesPacks(dout, 4) && TakesPacks(dtable, 4);
  if (dout.dtype() == DType::kF32) {
    return packs ? SumRows<float, 4>(sorted, dout, dtable, pieces, stream)
                 : SumRows<float, 1>(sorted, dout, dtable, pieces, stream);
  }
  return packs ? SumRows<bf16, 4>(sorted, dout, dtable, pieces, stream)
               : SumRows<bf16, 1>(sorted, dout, dtable, pieces, stream);
}

}  // namespace longspan::cuda
