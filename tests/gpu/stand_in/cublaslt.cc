// A stand-in for libcublasLt: the functions that kernels/cuda calls, on the CPU. It does what every
// descriptor says, and refuses what the library's documentation rules out: type combinations,
// leading dimensions, alignments that differ from those promised, algorithms of another problem. On
// request it has no algorithm for an epilogue, as the real one may (cublaslt.h).
#include "cublaslt.h"

#include <cublasLt.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

extern "C" int LongspanStandInEnqueue(cudaStream_t stream, void (*work)(void*), void* data);

namespace {

struct Layout {
  cudaDataType type;
  uint64_t rows, columns;
  int64_t stride;
  int64_t OffsetOf(int64_t row, int64_t column) const { return column * stride + row; }
};

struct Operation {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
  int32_t bias_type = -1;  // as D's
  void* aux = nullptr;
  int64_t aux_stride = 0;
  int32_t aux_type = -1;  // as D's
  bool HasBias() const {
    return epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
  }
  bool HasAux() const {
    return epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || epilogue == CUBLASLT_EPILOGUE_DGELU;
  }
  // The gradient of a bias is stored where a bias is read.
  bool UsesBias() const { return HasBias() || epilogue == CUBLASLT_EPILOGUE_BGRADA; }
};

std::atomic<bool> refuses_epilogues{false};
std::atomic<int64_t> questions{0};

struct Preference {
  uint64_t workspace = 0;
  uint32_t alignments[4] = {256, 256, 256, 256};  // A, B, C, D
};

// What an algorithm was found for; it travels in the algorithm's opaque words.
struct Problem {
  uint32_t hash;
  uint32_t alignments[4];
  uint32_t bias_alignment, aux_alignment;
  uint64_t workspace;
};
static_assert(sizeof(Problem) <= sizeof(cublasLtMatmulAlgo_t));

Operation& Of(cublasLtMatmulDesc_t d) { return *reinterpret_cast<Operation*>(d); }
Layout& Of(cublasLtMatrixLayout_t d) { return *reinterpret_cast<Layout*>(d); }

template <typename T>
bool Take(T& target, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return false;
  std::memcpy(&target, value, sizeof(T));
  return true;
}

int64_t SizeOf(cudaDataType type) { return type == CUDA_R_16BF ? 2 : 4; }

float Read(const void* at, cudaDataType type, int64_t element) {
  if (type == CUDA_R_32F) return static_cast<const float*>(at)[element];
  const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(at)[element]) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

void Write(void* at, cudaDataType type, int64_t element, float value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(at)[element] = value;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  static_cast<uint16_t*>(at)[element] =
      static_cast<uint16_t>((nan ? bits | 0x400000u : rounded) >> 16);
}

// Extents of the product: D is (m, n).
struct Extents {
  int64_t m, n, k;
};

cublasStatus_t Check(const Operation& op, const Layout& a, const Layout& b, const Layout& c,
                     const Layout& d, Extents& extents) {
  if (op.compute != CUBLAS_COMPUTE_32F || op.scale != CUDA_R_32F)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool wide = a.type == CUDA_R_32F && b.type == CUDA_R_32F && d.type == CUDA_R_32F;
  const bool narrow = a.type == CUDA_R_16BF && b.type == CUDA_R_16BF &&
                      (d.type == CUDA_R_16BF || d.type == CUDA_R_32F);
  if ((!wide && !narrow) || c.type != d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool known = op.epilogue == CUBLASLT_EPILOGUE_DEFAULT || op.HasAux() || op.UsesBias();
  const auto is_type_of_d = [&](int32_t type) {
    return type == -1 || type == static_cast<int32_t>(d.type);
  };
  if (!known || (op.UsesBias() && !is_type_of_d(op.bias_type))) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (op.HasAux()) {
    if (!is_type_of_d(op.aux_type)) return CUBLAS_STATUS_INVALID_VALUE;
    if (op.aux_stride % 8 != 0 || op.aux_stride < static_cast<int64_t>(d.rows))
      return CUBLAS_STATUS_INVALID_VALUE;
  }
  for (const Layout* layout : {&a, &b, &c, &d}) {
    if (layout->rows == 0 || layout->columns == 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (layout->stride < static_cast<int64_t>(layout->rows)) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool a_across = op.transpose_a == CUBLAS_OP_T, b_across = op.transpose_b == CUBLAS_OP_T;
  extents = {static_cast<int64_t>(a_across ? a.columns : a.rows),
             static_cast<int64_t>(b_across ? b.rows : b.columns),
             static_cast<int64_t>(a_across ? a.rows : a.columns)};
  const auto differs = [](uint64_t x, int64_t y) { return static_cast<int64_t>(x) != y; };
  if (differs(b_across ? b.columns : b.rows, extents.k) || differs(d.rows, extents.m) ||
      differs(d.columns, extents.n) || c.rows != d.rows || c.columns != d.columns) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return CUBLAS_STATUS_SUCCESS;
}

uint32_t HashOf(const Operation& op, const Layout& a, const Layout& b, const Layout& d) {
  uint32_t hash = 2166136261u;
  const auto add = [&](uint64_t value) {
    hash = (hash ^ static_cast<uint32_t>(value)) * 16777619u;
  };
  add(op.transpose_a);
  add(op.transpose_b);
  add(op.epilogue);
  add(static_cast<uint64_t>(op.HasAux() ? op.aux_stride : 0));
  for (const Layout* layout : {&a, &b, &d}) {
    add(layout->type);
    add(layout->rows);
    add(layout->columns);
    add(static_cast<uint64_t>(layout->stride));
  }
  return hash;
}

bool OnDevice(const void* at) {
  cudaPointerAttributes attributes;
  return cudaPointerGetAttributes(&attributes, at) == cudaSuccess &&
         attributes.type == cudaMemoryTypeDevice;
}

bool IsAligned(const void* at, uint64_t bytes) {
  return reinterpret_cast<uintptr_t>(at) % bytes == 0;
}

// Of a pointer: 256 bytes, or less.
uint32_t AlignmentOf(const void* at) {
  const uintptr_t lowest = reinterpret_cast<uintptr_t>(at) & (~reinterpret_cast<uintptr_t>(at) + 1);
  return static_cast<uint32_t>(lowest == 0 ? 256 : std::min<uintptr_t>(256, lowest));
}

struct Product {
  Operation op;
  Layout a, b, c, d;
  Extents extents;
  float alpha, beta;
  const void *a_data, *b_data, *c_data;
  void* d_data;
};

// Sums in FP32, in stretches, as tensor cores do.
float Dot(const float* x, const float* y, int64_t count) {
  constexpr int kLanes = 8;
  float total = 0;
  for (int64_t begin = 0; begin < count; begin += 256) {
    const int64_t end = std::min<int64_t>(count, begin + 256);
    float lanes[kLanes] = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * y[i + lane];
    }
    for (; i < end; ++i) lanes[0] += x[i] * y[i];
    for (const float lane : lanes) total += lane;
  }
  return total;
}

// The tanh form, as the library's.
float TanhOf(float x) { return std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)); }
float Gelu(float x) { return 0.5f * x * (1 + TanhOf(x)); }
float GeluSlope(float x) {
  const float t = TanhOf(x);
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * x * x);
}

// What D (i, j) becomes.
float Finished(const Product& p, float value, int64_t i, int64_t j) {
  const int64_t aux = j * p.op.aux_stride + i;
  if (p.op.HasBias()) value += Read(p.op.bias, p.d.type, i);
  switch (p.op.epilogue) {
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
      Write(p.op.aux, p.d.type, aux, value);
      return Gelu(value);
    case CUBLASLT_EPILOGUE_DGELU:
      return value * GeluSlope(Read(p.op.aux, p.d.type, aux));
    default:
      return value;
  }
}

void Run(const Product& p) {
  const auto [m, n, k] = p.extents;
  std::vector<float> a(m * k), b(n * k);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t l = 0; l < k; ++l) {
      const bool across = p.op.transpose_a == CUBLAS_OP_T;
      a[i * k + l] = Read(p.a_data, p.a.type, across ? p.a.OffsetOf(l, i) : p.a.OffsetOf(i, l));
    }
  }
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t l = 0; l < k; ++l) {
      const bool across = p.op.transpose_b == CUBLAS_OP_T;
      b[j * k + l] = Read(p.b_data, p.b.type, across ? p.b.OffsetOf(j, l) : p.b.OffsetOf(l, j));
    }
  }
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < m; ++i) {
      float value = p.alpha * Dot(&a[i * k], &b[j * k], k);
      if (p.beta != 0) value += p.beta * Read(p.c_data, p.c.type, p.c.OffsetOf(i, j));
      Write(p.d_data, p.d.type, p.d.OffsetOf(i, j), Finished(p, value, i, j));
    }
  }
  if (p.op.epilogue != CUBLASLT_EPILOGUE_BGRADA) return;
  const std::vector<float> ones(k, 1.0f);
  for (int64_t i = 0; i < m; ++i) Write(p.op.bias, p.d.type, i, Dot(&a[i * k], ones.data(), k));
}

}  // namespace

extern "C" {

void LongspanStandInRefuseEpilogues(bool refuses) { refuses_epilogues = refuses; }
int64_t LongspanStandInAlgorithmQuestions() { return questions; }

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "not supported";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an unsupported value or parameter was passed to the function";
    default:
      return "error of the stand-in";
  }
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int(1));
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Operation{compute, scale});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete &Of(operation);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void* value, size_t bytes) {
  Operation& op = Of(operation);
  bool taken = false;
  switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      taken = Take(op.transpose_a, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
      taken = Take(op.transpose_b, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      taken = Take(op.epilogue, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      taken = Take(op.bias, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      taken = Take(op.bias_type, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      taken = Take(op.aux, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      taken = Take(op.aux_stride, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
      taken = Take(op.aux_type, value, bytes);
      break;
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return taken ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
  *made = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, stride});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete &Of(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<Preference*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* value, size_t bytes) {
  Preference& p = *reinterpret_cast<Preference*>(preference);
  bool taken = false;
  switch (name) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      taken = Take(p.workspace, value, bytes);
      break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      taken = Take(p.alignments[0], value, bytes);
      break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      taken = Take(p.alignments[1], value, bytes);
      break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      taken = Take(p.alignments[2], value, bytes);
      break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      taken = Take(p.alignments[3], value, bytes);
      break;
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return taken ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* count) {
  *count = 0;
  ++questions;
  if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  Extents extents;
  const cublasStatus_t status = Check(Of(operation), Of(a), Of(b), Of(c), Of(d), extents);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const Operation& op = Of(operation);
  if (refuses_epilogues && op.epilogue != CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_SUCCESS;
  const Preference& p = *reinterpret_cast<const Preference*>(preference);
  // What these pointers are now is what may be counted on.
  Problem problem{
      HashOf(op, Of(a), Of(b), Of(d)), {}, AlignmentOf(op.bias), AlignmentOf(op.aux), p.workspace};
  std::copy(p.alignments, p.alignments + 4, problem.alignments);
  results[0] = {};
  std::memcpy(&results[0].algo, &problem, sizeof(problem));
  results[0].workspaceSize = p.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* a_data, cublasLtMatrixLayout_t a, const void* b_data,
                              cublasLtMatrixLayout_t b, const void* beta, const void* c_data,
                              cublasLtMatrixLayout_t c, void* d_data, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  auto product = std::make_unique<Product>();
  product->op = Of(operation);
  product->a = Of(a);
  product->b = Of(b);
  product->c = Of(c);
  product->d = Of(d);
  const cublasStatus_t status =
      Check(product->op, product->a, product->b, product->c, product->d, product->extents);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (algorithm == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  Problem problem;
  std::memcpy(&problem, algorithm, sizeof(problem));
  if (problem.hash != HashOf(product->op, product->a, product->b, product->d))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (workspace_bytes < problem.workspace || !IsAligned(workspace, 256) ||
      (problem.workspace > 0 && !OnDevice(workspace))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const void* const data[] = {a_data, b_data, c_data, d_data};
  for (int i = 0; i < 4; ++i) {
    if (!OnDevice(data[i]) || !IsAligned(data[i], problem.alignments[i]))
      return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (!IsAligned(a_data, SizeOf(product->a.type)) || !IsAligned(d_data, SizeOf(product->d.type)))
    return CUBLAS_STATUS_INVALID_VALUE;
  const Operation& op = product->op;
  if (op.UsesBias() && (!OnDevice(op.bias) || !IsAligned(op.bias, problem.bias_alignment)))
    return CUBLAS_STATUS_INVALID_VALUE;
  // Whether D may lie over the auxiliary matrix is not said.
  if (op.HasAux() &&
      (!OnDevice(op.aux) || !IsAligned(op.aux, problem.aux_alignment) || op.aux == d_data)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  // In place, C and D are one matrix.
  if (c_data == d_data && product->c.stride != product->d.stride)
    return CUBLAS_STATUS_INVALID_VALUE;
  product->alpha = *static_cast<const float*>(alpha);
  product->beta = *static_cast<const float*>(beta);
  product->a_data = a_data;
  product->b_data = b_data;
  product->c_data = c_data;
  product->d_data = d_data;
  // Whoever counts on the workspace for something else finds it used.
  if (problem.workspace > 0)
    (void)cudaMemsetAsync(workspace, 0xee, std::min<size_t>(4096, problem.workspace), stream);
  const auto run = [](void* work) {
    const std::unique_ptr<Product> owned(static_cast<Product*>(work));
    Run(*owned);
  };
  return LongspanStandInEnqueue(stream, run, product.release()) == 0
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
