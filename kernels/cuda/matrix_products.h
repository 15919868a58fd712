// Matrix products by cuBLASLt: descriptors and the algorithm of each shape are made once and kept.
#ifndef LONGSPAN_KERNELS_CUDA_MATRIX_PRODUCTS_H_
#define LONGSPAN_KERNELS_CUDA_MATRIX_PRODUCTS_H_

#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "kernels/cuda/cublaslt_library.h"
#include "kernels/device/tensor_view.h"
#include "kernels/gemm.h"

namespace longspan::cuda {

// What an algorithm depends on of a matrix of rows: its elements, and how they lie.
struct ProductOperand {
  DType type = DType::kF32;
  int64_t stride = 0;  // elements between rows
  int alignment = 0;   // bytes: 256, or the pointer's if less
  auto operator<=>(const ProductOperand&) const = default;
};

// Bytes: what vectors and pre-activations of epilogues that the library takes are aligned to.
inline constexpr int kEpilogueAlignment = 16;

// What an algorithm depends on: c (m, n) = alpha * op(a) op(b) + beta * c, then the epilogue.
struct ProductShape {
  ProductOperand a, b, c;
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  bool reads_c = false;
  Epilogue::Kind epilogue = Epilogue::Kind::kNone;
  // At most kEpilogueAlignment is said of what follows.
  int bias_alignment = 0;         // with a bias or its gradient; both are of c's type
  ProductOperand pre_activation;  // with one
  auto operator<=>(const ProductShape&) const = default;
};

// Where a product's operands are: device memory, aligned as the shape says.
struct ProductMemory {
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  void* bias = nullptr;            // read; of kBiasGradient: overwritten, not added to
  void* pre_activation = nullptr;  // of kBiasGelu: written; of kGeluGradient: read
};

// Thread-safe. Of one GPU.
class MatrixProducts {
 public:
  // For the GPU that is current on this thread.
  static absl::StatusOr<std::unique_ptr<MatrixProducts>> Open();
  ~MatrixProducts();
  MatrixProducts(const MatrixProducts&) = delete;
  MatrixProducts& operator=(const MatrixProducts&) = delete;

  // Whether product and epilogue are one call of the library. What it says of a shape is asked once
  // and kept. An error is one of the library, not a refusal.
  absl::StatusOr<bool> Fuses(const ProductShape& shape);
  // Queues the product, with an epilogue only where Fuses() says so. Unimplemented where the
  // library has no algorithm for the shape. `workspace` has StreamMemory::kMatrixProductBytes.
  absl::Status Run(const ProductShape& shape, float alpha, float beta, const ProductMemory& memory,
                   void* workspace, cudaStream_t stream);
  // Shapes for which the library was asked for an algorithm.
  int64_t shapes() const;

 private:
  struct Plan;
  struct Entry {
    absl::Status refusal;  // Unimplemented, where there is no plan
    std::unique_ptr<Plan> plan;
  };
  explicit MatrixProducts(const CublasLtLibrary& library);
  absl::StatusOr<const Entry*> EntryFor(const ProductShape& shape);
  absl::Status Describe(const ProductShape& shape, Plan& plan) const;
  absl::Status PointAt(const ProductShape& shape, const ProductMemory& memory,
                       const Plan& plan) const;

  const CublasLtLibrary& library_;
  cublasLtHandle_t handle_ = nullptr;
  mutable std::mutex mutex_;
  std::map<ProductShape, Entry> entries_;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_MATRIX_PRODUCTS_H_
