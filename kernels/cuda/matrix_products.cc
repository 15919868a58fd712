#include "kernels/cuda/matrix_products.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/stream_memory.h"

namespace longspan::cuda {
namespace {

using Kind = Epilogue::Kind;

// What a DType is to the library.
cudaDataType_t LibraryType(DType dtype) { return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

bool HasBias(const ProductShape& shape) {
  return shape.epilogue == Kind::kBias || shape.epilogue == Kind::kBiasGelu ||
         shape.epilogue == Kind::kBiasGradient;
}

bool HasPreActivation(const ProductShape& shape) {
  return shape.epilogue == Kind::kBiasGelu || shape.epilogue == Kind::kGeluGradient;
}

cublasLtEpilogue_t LibraryEpilogue(Kind kind) {
  switch (kind) {
    case Kind::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case Kind::kBiasGelu:
      return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case Kind::kGeluGradient:
      return CUBLASLT_EPILOGUE_DGELU;
    case Kind::kBiasGradient:
      return CUBLASLT_EPILOGUE_BGRADA;  // our b is its first operand
    default:
      return CUBLASLT_EPILOGUE_DEFAULT;
  }
}

// Whether the library may take the epilogue. Pre-activations have rows of a multiple of 8 elements;
// what a bias gradient is stored as is c's type, which must be f32. Biases that are less aligned
// than a 16-byte access have been seen to fail on an A100.
bool MayFuse(const ProductShape& shape) {
  if (HasBias(shape) && shape.bias_alignment < kEpilogueAlignment) return false;
  if (HasPreActivation(shape))
    return shape.pre_activation.stride % 8 == 0 &&
           shape.pre_activation.alignment >= kEpilogueAlignment;
  return shape.epilogue != Kind::kBiasGradient || shape.c.type == DType::kF32;
}

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
  entries_.clear();
  if (handle_ != nullptr) (void)library_.destroy(handle_);
}

int64_t MatrixProducts::shapes() const {
  std::lock_guard lock(mutex_);
  return static_cast<int64_t>(entries_.size());
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
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, LibraryEpilogue(shape.epilogue));
  if (HasBias(shape)) set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, LibraryType(shape.c.type));
  if (HasPreActivation(shape)) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, shape.pre_activation.stride);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, LibraryType(shape.pre_activation.type));
  }

  const auto layout = [&](cublasLtMatrixLayout_t& made, const ProductOperand& operand, int64_t rows,
                          int64_t columns) {
    if (!status.ok()) return;
    status = library_.Check(
        library_.create_layout(&made, LibraryType(operand.type), static_cast<uint64_t>(rows),
                               static_cast<uint64_t>(columns), operand.stride),
        "cublasLtMatrixLayoutCreate");
  };
  layout(plan.first, shape.b, shape.transpose_b ? shape.k : shape.n,
         shape.transpose_b ? shape.n : shape.k);
  layout(plan.second, shape.a, shape.transpose_a ? shape.m : shape.k,
         shape.transpose_a ? shape.k : shape.m);
  layout(plan.result, shape.c, shape.n, shape.m);

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
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(shape.b.alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(shape.a.alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(shape.c.alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(shape.c.alignment));
  return status;
}

// Pointers are attributes of the operation. Those of scales, which FP8 operands have beside their
// elements, would be set here too.
absl::Status MatrixProducts::PointAt(const ProductShape& shape, const ProductMemory& memory,
                                     const Plan& plan) const {
  absl::Status status;
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const void* pointer) {
    if (!status.ok()) return;
    status = library_.Check(library_.set_operation(plan.operation, name, &pointer, sizeof(pointer)),
                            "a pointer of a matrix product");
  };
  if (HasBias(shape)) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, memory.bias);
  if (HasPreActivation(shape))
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, memory.pre_activation);
  return status;
}

absl::StatusOr<const MatrixProducts::Entry*> MatrixProducts::EntryFor(const ProductShape& shape) {
  if (const auto found = entries_.find(shape); found != entries_.end()) return &found->second;
  auto plan = std::make_unique<Plan>(library_);
  absl::Status status = Describe(shape, *plan);
  // What pointers are now tells the library which alignment it may count on.
  ProductMemory aligned;
  aligned.bias = aligned.pre_activation = reinterpret_cast<void*>(uintptr_t{kEpilogueAlignment});
  if (status.ok()) status = PointAt(shape, aligned, *plan);
  if (!status.ok()) return status;
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  cublasStatus_t answer =
      library_.get_heuristic(handle_, plan->operation, plan->first, plan->second, plan->result,
                             plan->result, plan->preference, 1, &found, &count);
  if (answer == CUBLAS_STATUS_SUCCESS && count > 0) answer = found.state;
  // What an epilogue rules out is told in one of three ways.
  const bool refused = answer == CUBLAS_STATUS_NOT_SUPPORTED ||
                       (answer == CUBLAS_STATUS_INVALID_VALUE && shape.epilogue != Kind::kNone) ||
                       (answer == CUBLAS_STATUS_SUCCESS && count == 0);
  if (!refused) {
    status = library_.Check(answer, "cublasLtMatmulAlgoGetHeuristic");
    if (!status.ok()) return status;
    plan->algorithm = found.algo;
    return &(entries_[shape] = Entry{absl::OkStatus(), std::move(plan)});
  }
  const auto type = [](const ProductOperand& operand) { return Name(operand.type); };
  const absl::Status refusal = absl::UnimplementedError(absl::StrCat(
      "matrix product ", shape.m, " x ", shape.k, " (", type(shape.a), ") by ", shape.k, " x ",
      shape.n, " (", type(shape.b), ") to ", type(shape.c), ": cuBLASLt has no algorithm"));
  return &(entries_[shape] = Entry{refusal, nullptr});
}

absl::StatusOr<bool> MatrixProducts::Fuses(const ProductShape& shape) {
  if (shape.epilogue == Kind::kNone) return true;
  if (!MayFuse(shape)) return false;
  std::lock_guard lock(mutex_);
  const absl::StatusOr<const Entry*> entry = EntryFor(shape);
  if (!entry.ok()) return entry.status();
  return (*entry)->plan != nullptr;
}

absl::Status MatrixProducts::Run(const ProductShape& shape, float alpha, float beta,
                                 const ProductMemory& memory, void* workspace,
                                 cudaStream_t stream) {
  // Held to the end: pointers are attributes of the operation that calls share.
  std::lock_guard lock(mutex_);
  const absl::StatusOr<const Entry*> entry = EntryFor(shape);
  if (!entry.ok()) return entry.status();
  if ((*entry)->plan == nullptr) return (*entry)->refusal;
  const Plan& plan = *(*entry)->plan;
  const absl::Status status = PointAt(shape, memory, plan);
  if (!status.ok()) return status;
  return library_.Check(
      library_.matmul(handle_, plan.operation, &alpha, memory.b, plan.first, memory.a, plan.second,
                      &beta, memory.c, plan.result, memory.c, plan.result, &plan.algorithm,
                      workspace, static_cast<size_t>(StreamMemory::kMatrixProductBytes), stream),
      "cublasLtMatmul");
}

}  // namespace longspan::cuda
