// TensorView: a typed, shaped view of memory that somebody else owns.
//
// A view is a small value: copy it freely. It does not know which device its memory is on; the
// stream it is used on does. Thread-safety: a value type, no hidden state. Ownership: none, the
// memory must outlive every queued use of the view.
#ifndef LONGSPAN_KERNELS_DEVICE_TENSOR_VIEW_H_
#define LONGSPAN_KERNELS_DEVICE_TENSOR_VIEW_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "kernels/device/check.h"

namespace longspan {

enum class DType : uint8_t { kF32, kF64, kBF16, kI32, kI64, kU8, kU16, kU32, kU64 };

// Bytes of one element.
int64_t SizeOf(DType dtype);
// "f32", "bf16", ...: the names used in files and messages.
const char* Name(DType dtype);

// The DType of a C++ element type, e.g. DTypeOf<float>() == DType::kF32.
template <typename T>
constexpr DType DTypeOf() {
  using U = std::remove_const_t<T>;
  if constexpr (std::is_same_v<U, float>)
    return DType::kF32;
  else if constexpr (std::is_same_v<U, double>)
    return DType::kF64;
  else if constexpr (std::is_same_v<U, int32_t>)
    return DType::kI32;
  else if constexpr (std::is_same_v<U, int64_t>)
    return DType::kI64;
  else if constexpr (std::is_same_v<U, uint8_t>)
    return DType::kU8;
  else if constexpr (std::is_same_v<U, uint16_t>)
    return DType::kU16;
  else if constexpr (std::is_same_v<U, uint32_t>)
    return DType::kU32;
  else {
    static_assert(std::is_same_v<U, uint64_t>, "no DType for this type");
    return DType::kU64;
  }
}

// Up to four dimensions, outermost first; strides in elements; the last dimension always has
// stride 1.
class TensorView {
 public:
  static constexpr int kMaxRank = 4;

  TensorView() = default;
  // A contiguous view.
  TensorView(void* data, DType dtype, std::initializer_list<int64_t> shape);
  template <typename T>
  static TensorView Of(T* data, std::initializer_list<int64_t> shape) {
    return TensorView(const_cast<std::remove_const_t<T>*>(data), DTypeOf<T>(), shape);
  }

  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }
  int64_t dim(int axis) const;
  // Distance, in elements, between neighbours along `axis`.
  int64_t stride(int axis) const;
  int64_t elements() const;
  int64_t bytes() const { return elements() * SizeOf(dtype_); }
  bool contiguous() const;
  bool empty() const { return elements() == 0; }

  void* raw() const { return data_; }
  // Checked access to the first element.
  template <typename T>
  T* data() const {
    LONGSPAN_CHECK(DTypeOf<T>() == dtype_, "tensor holds another dtype");
    return static_cast<T*>(data_);
  }

  // [begin, end) along `axis`; other dimensions unchanged.
  TensorView Slice(int axis, int64_t begin, int64_t end) const;
  // The same elements in another shape. A check fails unless the view is contiguous, or the last
  // dimension alone is split: (rows, heads * d) -> (rows, heads, d) works on strided rows too.
  TensorView Reshape(std::initializer_list<int64_t> shape) const;
  // "f32[4096, 384]".
  std::string ToString() const;

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<int64_t, kMaxRank> shape_{};
  std::array<int64_t, kMaxRank> strides_{};
};

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_TENSOR_VIEW_H_
