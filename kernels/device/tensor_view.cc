#include "kernels/device/tensor_view.h"

namespace longspan {

int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return 1;
    case DType::kBF16:
    case DType::kU16:
      return 2;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
  }
  return 0;
}

const char* Name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF64:
      return "f64";
    case DType::kBF16:
      return "bf16";
    case DType::kI32:
      return "i32";
    case DType::kI64:
      return "i64";
    case DType::kU8:
      return "u8";
    case DType::kU16:
      return "u16";
    case DType::kU32:
      return "u32";
    case DType::kU64:
      return "u64";
  }
  return "?";
}

TensorView::TensorView(void* data, DType dtype, std::initializer_list<int64_t> shape)
    : data_(data), dtype_(dtype), rank_(static_cast<int>(shape.size())) {
  LONGSPAN_CHECK(rank_ >= 1 && rank_ <= kMaxRank, "a tensor has 1 to 4 dimensions");
  int axis = 0;
  for (int64_t extent : shape) {
    LONGSPAN_CHECK(extent >= 0, "negative extent");
    shape_[axis++] = extent;
  }
  int64_t stride = 1;
  for (int i = rank_ - 1; i >= 0; --i) {
    strides_[i] = stride;
    stride *= shape_[i];
  }
}

int64_t TensorView::dim(int axis) const {
  LONGSPAN_CHECK(axis >= 0 && axis < rank_, "no such dimension");
  return shape_[axis];
}

int64_t TensorView::stride(int axis) const {
  LONGSPAN_CHECK(axis >= 0 && axis < rank_, "no such dimension");
  return strides_[axis];
}

int64_t TensorView::elements() const {
  if (rank_ == 0) return 0;
  int64_t count = 1;
  for (int i = 0; i < rank_; ++i) count *= shape_[i];
  return count;
}

bool TensorView::contiguous() const {
  int64_t stride = 1;
  for (int i = rank_ - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != stride) return false;
    stride *= shape_[i];
  }
  return true;
}

TensorView TensorView::Slice(int axis, int64_t begin, int64_t end) const {
  LONGSPAN_CHECK(axis >= 0 && axis < rank_, "no such dimension");
  LONGSPAN_CHECK(begin >= 0 && begin <= end && end <= shape_[axis], "slice outside the tensor");
  TensorView slice = *this;
  slice.data_ = static_cast<char*>(data_) + begin * strides_[axis] * SizeOf(dtype_);
  slice.shape_[axis] = end - begin;
  return slice;
}

TensorView TensorView::Reshape(std::initializer_list<int64_t> shape) const {
  TensorView result(data_, dtype_, shape);
  LONGSPAN_CHECK(result.elements() == elements(), "reshape changes the number of elements");
  if (contiguous()) return result;
  // Only the last dimension is split: leading dimensions keep their strides.
  LONGSPAN_CHECK(result.rank_ >= rank_, "only the last dimension of a strided tensor can be split");
  for (int i = 0; i < rank_ - 1; ++i) {
    LONGSPAN_CHECK(result.shape_[i] == shape_[i],
                   "only the last dimension of a strided tensor can be split");
    result.strides_[i] = strides_[i];
  }
  return result;
}

std::string TensorView::ToString() const {
  std::string text = Name(dtype_);
  text += "[";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape_[i]);
  }
  return text + "]";
}

}  // namespace longspan
