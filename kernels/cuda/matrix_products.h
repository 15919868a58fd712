// Matrix products by cuBLASLt: descriptors and the algorithm of each shape are made once and kept.
#ifndef LONGSPAN_KERNELS_CUDA_MATRIX_PRODUCTS_H_
#define LONGSPAN_KERNELS_CUDA_MATRIX_PRODUCTS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "absl/status/statusor.h"
#include "kernels/cuda/cublaslt_library.h"
#include "kernels/device/tensor_view.h"

namespace longspan::cuda {

// What an algorithm depends on: c (m, n) = alpha * op(a) op(b) + beta * c, or + bias, row-major.
struct ProductShape {
  DType a_type = DType::kF32, b_type = DType::kF32, c_type = DType::kF32;
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  int64_t a_stride = 0, b_stride = 0, c_stride = 0;       // elements between rows
  int a_alignment = 0, b_alignment = 0, c_alignment = 0;  // bytes: 256, or the pointer's if less
  bool reads_c = false;
  bool with_bias = false;  // of c's type

  auto Key() const {
    return std::make_tuple(a_type, b_type, c_type, transpose_a, transpose_b, m, n, k, a_stride,
                           b_stride, c_stride, a_alignment, b_alignment, c_alignment, reads_c,
                           with_bias);
  }
  bool operator<(const ProductShape& other) const { return Key() < other.Key(); }
};

// Thread-safe. Of one GPU.
class MatrixProducts {
 public:
  // For the GPU that is current on this thread.
  static absl::StatusOr<std::unique_ptr<MatrixProducts>> Open();
  ~MatrixProducts();
  MatrixProducts(const MatrixProducts&) = delete;
  MatrixProducts& operator=(const MatrixProducts&) = delete;

  // Queues the product. Unimplemented where the library has no algorithm for the shape. `workspace`
  // has StreamMemory::kMatrixProductBytes.
  absl::Status Run(const ProductShape& shape, float alpha, const void* a, const void* b, float beta,
                   void* c, const void* bias, void* workspace, cudaStream_t stream);
  // Shapes whose algorithm is known.
  int64_t shapes() const;

 private:
  struct Plan;
  explicit MatrixProducts(const CublasLtLibrary& library);
  absl::StatusOr<Plan*> PlanFor(const ProductShape& shape);
  absl::Status Describe(const ProductShape& shape, Plan& plan) const;

  const CublasLtLibrary& library_;
  cublasLtHandle_t handle_ = nullptr;
  mutable std::mutex mutex_;
  std::map<ProductShape, std::unique_ptr<Plan>> plans_;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_MATRIX_PRODUCTS_H_
