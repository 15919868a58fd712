#include "kernels/cuda/activation.cuh"

#include "kernels/cuda/rows.cuh"

namespace longspan::cuda {
namespace {

// 1 / (1 + exp(-x)): 0 and 1 at the ends, NaN for NaN.
__device__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename T>
struct SwiGluForward {
  Rows<const T> gate_up;
  Rows<T> y;
  int64_t ffn;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    const Pack<kLanes> gate = Load<kLanes>(gate_up[row] + c);
    Pack<kLanes> up = Load<kLanes>(gate_up[row] + ffn + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float g = gate.lane[k];
      // Where the sigmoid is 0 so is its product with -inf.
      const float s = Sigmoid(g);
      up.lane[k] *= s == 0.0f ? 0.0f : g * s;
    }
    Store(up, y[row] + c);
  }
};

template <typename T>
struct SwiGluBackward {
  Rows<const T> dy, gate_up;
  Rows<T> dgate_up;
  int64_t ffn;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    const Pack<kLanes> gradient = Load<kLanes>(dy[row] + c);
    const Pack<kLanes> gate = Load<kLanes>(gate_up[row] + c);
    const Pack<kLanes> up = Load<kLanes>(gate_up[row] + ffn + c);
    Pack<kLanes> dgate, dup;
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float g = gate.lane[k], s = Sigmoid(g);
      dgate.lane[k] = gradient.lane[k] * up.lane[k] * s * (1.0f + g * (1.0f - s));
      dup.lane[k] = gradient.lane[k] * g * s;
    }
    Store(dgate, dgate_up[row] + c);
    Store(dup, dgate_up[row] + ffn + c);
  }
};

constexpr float kRootTwoOverPi = 0.79788456080286535588f;
constexpr float kCubic = 0.044715f;

template <typename T>
struct GeluForward {
  Rows<const T> x;
  Rows<T> y;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    Pack<kLanes> v = Load<kLanes>(x[row] + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float a = v.lane[k];
      // 0.5 (1 + tanh(u)) = sigmoid(2 u), without the cancellation at the lower end.
      const float s = Sigmoid(2.0f * kRootTwoOverPi * a * (1.0f + kCubic * a * a));
      v.lane[k] = s == 0.0f ? 0.0f : a * s;
    }
    Store(v, y[row] + c);
  }
};

template <typename T>
struct GeluBackward {
  Rows<const T> dy, x;
  Rows<T> dx;
  template <int kLanes>
  __device__ void Do(int64_t row, int64_t c) const {
    const Pack<kLanes> v = Load<kLanes>(x[row] + c);
    Pack<kLanes> gradient = Load<kLanes>(dy[row] + c);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const float a = v.lane[k];
      const float s = Sigmoid(2.0f * kRootTwoOverPi * a * (1.0f + kCubic * a * a));
      const float slope = 2.0f * kRootTwoOverPi * (1.0f + 3.0f * kCubic * a * a);
      gradient.lane[k] *= s + a * s * (1.0f - s) * slope;
    }
    Store(gradient, dx[row] + c);
  }
};

}  // namespace

// The two halves of a row of gate_up take packs where the row and `ffn` do.
cudaError_t SwiGluForwardRows(const TensorView& gate_up, const TensorView& y, cudaStream_t stream) {
  const int lanes = LanesOf(gate_up, y);
  return WithType(y.dtype(), [&](auto type) {
    using T = decltype(type);
    return ForRows(y.dim(0), y.dim(1), lanes,
                   SwiGluForward<T>{RowsOf<const T>(gate_up), RowsOf<T>(y), y.dim(1)}, stream);
  });
}

cudaError_t SwiGluBackwardRows(const TensorView& dy, const TensorView& gate_up,
                               const TensorView& dgate_up, cudaStream_t stream) {
  const int lanes = LanesOf(dy, gate_up, dgate_up);
  return WithType(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    return ForRows(dy.dim(0), dy.dim(1), lanes,
                   SwiGluBackward<T>{RowsOf<const T>(dy), RowsOf<const T>(gate_up),
                                     RowsOf<T>(dgate_up), dy.dim(1)},
                   stream);
  });
}

cudaError_t GeluForwardRows(const TensorView& x, const TensorView& y, cudaStream_t stream) {
  const int lanes = LanesOf(x, y);
  return WithType(y.dtype(), [&](auto type) {
    using T = decltype(type);
    return ForRows(y.dim(0), y.dim(1), lanes, GeluForward<T>{RowsOf<const T>(x), RowsOf<T>(y)},
                   stream);
  });
}

cudaError_t GeluBackwardRows(const TensorView& dy, const TensorView& x, const TensorView& dx,
                             cudaStream_t stream) {
  const int lanes = LanesOf(dy, x, dx);
  return WithType(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    return ForRows(dy.dim(0), dy.dim(1), lanes,
                   GeluBackward<T>{RowsOf<const T>(dy), RowsOf<const T>(x), RowsOf<T>(dx)}, stream);
  });
}

}  // namespace longspan::cuda
