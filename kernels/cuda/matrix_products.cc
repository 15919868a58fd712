#include "kernels/cuda/matrix_products.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/stream_memory.h"

namespace longspan::cuda {
namespace {

// The one place that knows what a DType is to the library. An FP8 type would be a line here, and
// its scales two more attributes of the operation (A_SCALE_POINTER, B_SCALE_POINTER).
cudaDataType_t LibraryType(DType dtype) { return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

}  // namespace

// The library knows columns first, so it computes c^T = op(b)^T op(a)^T: its first operand is our
// b, and a matrix of rows is to it one of columns as it lies.
struct MatrixProducts::Plan {
  explicit Plan(const CublasLtLibrary& of) : library(of) {}
  ~Plan() {
    if (operation != nullptr) (void)library.destroy_operation(operation);
    for (cublasLtMatrixLayout_t layout : {first, second, result}) {
      if (layout != nullptr) (void)library.destroy_layout(layout);
    }
    if (preference != nullptr) (void)library.destroy_preference(preference);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const CublasLtLibrary& library;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
};

absl::StatusOr<std::unique_ptr<MatrixProducts>> MatrixProducts::Open() {
  absl::StatusOr<const CublasLtLibrary*> library = CublasLtLibrary::Load();
  if (!library.ok()) return library.status();
  std::unique_ptr<MatrixProducts> products(new MatrixProducts(**library));
  const absl::Status status =
      (*library)->Check((*library)->create(&products->handle_), "cublasLtCreate");
  if (!status.ok()) return status;
  return products;
}

MatrixProducts::MatrixProducts(const CublasLtLibrary& library) : library_(library) {}

MatrixProducts::~MatrixProducts() {
  plans_.clear();
  if (handle_ != nullptr) (void)library_.destroy(handle_);
}

int64_t MatrixProducts::shapes() const {
  std::lock_guard lock(mutex_);
  return static_cast<int64_t>(plans_.size());
}

absl::Status MatrixProducts::Describe(const ProductShape& shape, Plan& plan) const {
  absl::Status status = library_.Check(
      // FP32 sums; of FP32 operands in full, not TF32.
      library_.create_operation(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
      "cublasLtMatmulDescCreate");
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const auto& value) {
    if (!status.ok()) return;
    status = library_.Check(library_.set_operation(plan.operation, name, &value, sizeof(value)),
                            "an attribute of a matrix product");
  };
  const cublasOperation_t across = CUBLAS_OP_T, along = CUBLAS_OP_N;
  set(CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_b ? across : along);
  set(CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_a ? across : along);
  if (shape.with_bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, LibraryType(shape.c_type));
  }

  const auto layout = [&](cublasLtMatrixLayout_t& made, DType type, int64_t rows, int64_t columns,
                          int64_t stride) {
    if (!status.ok()) return;
    status =
        library_.Check(library_.create_layout(&made, LibraryType(type), static_cast<uint64_t>(rows),
                                              static_cast<uint64_t>(columns), stride),
                       "cublasLtMatrixLayoutCreate");
  };
  layout(plan.first, shape.b_type, shape.transpose_b ? shape.k : shape.n,
         shape.transpose_b ? shape.n : shape.k, shape.b_stride);
  layout(plan.second, shape.a_type, shape.transpose_a ? shape.m : shape.k,
         shape.transpose_a ? shape.k : shape.m, shape.a_stride);
  layout(plan.result, shape.c_type, shape.n, shape.m, shape.c_stride);

  if (status.ok()) {
    status = library_.Check(library_.create_preference(&plan.preference),
                            "cublasLtMatmulPreferenceCreate");
  }
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    if (!status.ok()) return;
    status = library_.Check(library_.set_preference(plan.preference, name, &value, sizeof(value)),
                            "a preference for matrix products");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
         static_cast<uint64_t>(StreamMemory::kMatrixProductBytes));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(shape.b_alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(shape.a_alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(shape.c_alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(shape.c_alignment));
  return status;
}

absl::StatusOr<MatrixProducts::Plan*> MatrixProducts::PlanFor(const ProductShape& shape) {
  std::unique_ptr<Plan>& kept = plans_[shape];
  if (kept != nullptr) return kept.get();
  auto plan = std::make_unique<Plan>(library_);
  absl::Status status = Describe(shape, *plan);
  if (!status.ok()) return status;
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  status = library_.Check(
      library_.get_heuristic(handle_, plan->operation, plan->first, plan->second, plan->result,
                             plan->result, plan->preference, 1, &found, &count),
      "cublasLtMatmulAlgoGetHeuristic");
  if (status.ok() && count > 0) status = library_.Check(found.state, "the algorithm found");
  if (status.ok() && count == 0) status = absl::UnimplementedError("cuBLASLt: no algorithm");
  if (!status.ok()) {
    return absl::Status(
        status.code(),
        absl::StrCat("matrix product ", shape.m, " x ", shape.k, " (", Name(shape.a_type), ") by ",
                     shape.k, " x ", shape.n, " (", Name(shape.b_type), ") to ", Name(shape.c_type),
                     ": ", status.message()));
  }
  plan->algorithm = found.algo;
  kept = std::move(plan);
  return kept.get();
}

absl::Status MatrixProducts::Run(const ProductShape& shape, float alpha, const void* a,
                                 const void* b, float beta, void* c, const void* bias,
                                 void* workspace, cudaStream_t stream) {
  // Held to the end: the bias is an attribute of the operation that calls share.
  std::lock_guard lock(mutex_);
  const absl::StatusOr<Plan*> found = PlanFor(shape);
  if (!found.ok()) return found.status();
  const Plan& plan = **found;
  if (shape.with_bias) {
    const absl::Status status =
        library_.Check(library_.set_operation(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                              &bias, sizeof(bias)),
                       "the bias of a matrix product");
    if (!status.ok()) return status;
  }
  return library_.Check(
      library_.matmul(handle_, plan.operation, &alpha, b, plan.first, a, plan.second, &beta, c,
                      plan.result, c, plan.result, &plan.algorithm, workspace,
                      static_cast<size_t>(StreamMemory::kMatrixProductBytes), stream),
      "cublasLtMatmul");
}

}  // namespace longspan::cuda
