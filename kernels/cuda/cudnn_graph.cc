#include "kernels/cuda/cudnn_graph.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace longspan::cuda {
namespace {

constexpr int64_t kAlignment = 16;  // bytes, of every tensor in memory

}  // namespace

std::string DescribedH100() {
  return R"({"deviceVer":900,"driverVer":13000,"cudaDeviceId":0,"totalGlobalMem":85017624576,)"
         R"("maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],)"
         R"("regsPerBlock":65536,"multiProcessorCount":132,"warpSize":32,)"
         R"("maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":232448,)"
         R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"maxCtasPerSM":32,)"
         R"("maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":9008,)"
         R"("isTccDriver":0,"supportCoopLaunch":1,"smClockRateKHz":1980000,)"
         R"("memClockRateKHz":2619000,"l2CacheSize":52428800,)"
         R"("deviceName":"NVIDIA H100 80GB HBM3"})";
}

CudnnDescriptors::~CudnnDescriptors() { Destroy(); }

CudnnDescriptors::CudnnDescriptors(CudnnDescriptors&& other) noexcept
    : library_(other.library_), owned_(std::exchange(other.owned_, {})) {}

CudnnDescriptors& CudnnDescriptors::operator=(CudnnDescriptors&& other) noexcept {
  if (this == &other) return *this;
  Destroy();
  library_ = other.library_;
  owned_ = std::exchange(other.owned_, {});
  return *this;
}

void CudnnDescriptors::Destroy() {
  // What refers to others goes first.
  for (auto it = owned_.rbegin(); it != owned_.rend(); ++it) library_->destroy_descriptor(*it);
  owned_.clear();
}

cudnnBackendDescriptor_t CudnnDescriptors::Create(cudnnBackendDescriptorType_t type,
                                                  absl::Status& status) {
  cudnnBackendDescriptor_t descriptor = nullptr;
  status = library_->Check(library_->create_descriptor(type, &descriptor),
                           "cudnnBackendCreateDescriptor");
  if (!status.ok()) return nullptr;
  owned_.push_back(descriptor);
  return descriptor;
}

absl::Status CudnnPlan::Execute(cudnnHandle_t handle, const std::vector<Binding>& bindings,
                                void* workspace) const {
  const CudnnLibrary& library = descriptors_.library();
  std::vector<int64_t> ids;
  std::vector<void*> memory;
  for (const Binding& binding : bindings) {
    ids.push_back(binding.id);
    memory.push_back(binding.memory);
  }
  // Of this run alone.
  CudnnDescriptors run(library);
  absl::Status status;
  const cudnnBackendDescriptor_t pack = run.Create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, status);
  const auto set = [&](cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                       int64_t count, const void* values) {
    if (status.ok()) {
      status = library.Check(library.set_attribute(pack, name, type, count, values),
                             "the bindings of a plan");
    }
  };
  const int64_t count = static_cast<int64_t>(bindings.size());
  set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids.data());
  set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, memory.data());
  set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  if (!status.ok()) return status;
  status = library.Check(library.finalize(pack), "the bindings of a plan");
  if (!status.ok()) return status;
  return library.Check(library.execute(handle, plan_, pack), "cudnnBackendExecute");
}

CudnnGraph::CudnnGraph(const CudnnLibrary& library) : descriptors_(library) {}

cudnnBackendDescriptor_t CudnnGraph::Create(cudnnBackendDescriptorType_t type) {
  return status_.ok() ? descriptors_.Create(type, status_) : nullptr;
}

void CudnnGraph::Set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                     cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  if (!status_.ok()) return;
  const CudnnLibrary& library = descriptors_.library();
  const cudnnStatus_t result = library.set_attribute(descriptor, name, type, count, values);
  if (result != CUDNN_STATUS_SUCCESS) {
    status_ = library.Check(result, absl::StrCat("attribute ", static_cast<int>(name)).c_str());
  }
}

void CudnnGraph::Set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                     cudnnBackendDescriptor_t value) {
  Set(descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void CudnnGraph::Finalize(cudnnBackendDescriptor_t descriptor, const char* what) {
  if (status_.ok())
    status_ = descriptors_.library().Check(descriptors_.library().finalize(descriptor), what);
}

CudnnGraph::Tensor CudnnGraph::MakeTensor(Extents extents, Extents strides, cudnnDataType_t type,
                                          bool is_virtual, bool by_value, const Tensor* offsets) {
  Tensor tensor{nullptr, std::move(extents), std::move(strides), next_id_++};
  tensor.descriptor = Create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const cudnnBackendDescriptor_t d = tensor.descriptor;
  Set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  Set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, tensor.extents.size(),
      tensor.extents.data());
  Set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, tensor.strides.size(), tensor.strides.data());
  Set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &tensor.id);
  Set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &kAlignment);
  Set(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
  Set(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
  if (offsets != nullptr) Set(d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, offsets->descriptor);
  Finalize(d, "a tensor");
  return tensor;
}

CudnnGraph::Tensor CudnnGraph::Memory(Extents extents, Extents strides, cudnnDataType_t type,
                                      const Tensor* offsets) {
  return MakeTensor(std::move(extents), std::move(strides), type, false, false, offsets);
}

CudnnGraph::Tensor CudnnGraph::Virtual(Extents extents, Extents strides, cudnnDataType_t type,
                                       const Tensor* offsets) {
  return MakeTensor(std::move(extents), std::move(strides), type, true, false, offsets);
}

CudnnGraph::Tensor CudnnGraph::VirtualLike(const Tensor& x, cudnnDataType_t type) {
  return Virtual(x.extents, x.strides, type);
}

CudnnGraph::Tensor CudnnGraph::Scalar(cudnnDataType_t type) {
  return MakeTensor({1, 1, 1, 1}, {1, 1, 1, 1}, type, false, true, nullptr);
}

void CudnnGraph::AddPointwise(cudnnPointwiseMode_t mode, cudnnDataType_t precision, int64_t axis,
                              const Tensor& x, const Tensor* b, const Tensor* mask,
                              const Tensor& y) {
  const cudnnBackendDescriptor_t what = Create(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  Set(what, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  Set(what, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
  if (axis >= 0) Set(what, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
  Finalize(what, "a pointwise operation's kind");
  const cudnnBackendDescriptor_t d = Create(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  Set(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, what);
  Set(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor);
  if (b != nullptr) Set(d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b->descriptor);
  if (mask != nullptr) Set(d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, mask->descriptor);
  Set(d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.descriptor);
  Finalize(d, "a pointwise operation");
  operations_.push_back(d);
}

void CudnnGraph::Pointwise(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor& y) {
  AddPointwise(mode, CUDNN_DATA_FLOAT, -1, x, nullptr, nullptr, y);
}

void CudnnGraph::Pointwise(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor& b,
                           const Tensor& y, cudnnDataType_t precision) {
  AddPointwise(mode, precision, -1, x, &b, nullptr, y);
}

CudnnGraph::Tensor CudnnGraph::Index(const Tensor& x, int64_t axis) {
  Tensor y = VirtualLike(x, CUDNN_DATA_INT32);
  AddPointwise(CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_INT32, axis, x, nullptr, nullptr, y);
  return y;
}

CudnnGraph::Tensor CudnnGraph::Select(const Tensor& mask, const Tensor& x, const Tensor& b) {
  Tensor y = VirtualLike(x, CUDNN_DATA_FLOAT);
  AddPointwise(CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, -1, x, &b, &mask, y);
  return y;
}

void CudnnGraph::Matmul(const Tensor& a, const Tensor& b, const Tensor& c,
                        const MatmulExtents& extents) {
  const cudnnBackendDescriptor_t what = Create(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  Set(what, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
  const double zero = 0;
  if (extents.pads_with_zeros)
    Set(what, CUDNN_ATTR_MATMUL_PADDING_VALUE, CUDNN_TYPE_DOUBLE, 1, &zero);
  Finalize(what, "a matrix product's kind");
  const cudnnBackendDescriptor_t d = Create(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  Set(d, CUDNN_ATTR_OPERATION_MATMUL_DESC, what);
  Set(d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.descriptor);
  Set(d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.descriptor);
  Set(d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c.descriptor);
  if (extents.m != nullptr)
    Set(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, extents.m->descriptor);
  if (extents.n != nullptr)
    Set(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, extents.n->descriptor);
  if (extents.k != nullptr)
    Set(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, extents.k->descriptor);
  Finalize(d, "a matrix product");
  operations_.push_back(d);
}

void CudnnGraph::Reduce(cudnnReduceTensorOp_t operation, const Tensor& x, const Tensor& y) {
  const cudnnBackendDescriptor_t what = Create(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  Set(what, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &operation);
  Set(what, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
  Finalize(what, "a reduction's kind");
  const cudnnBackendDescriptor_t d = Create(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  Set(d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, what);
  Set(d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.descriptor);
  Set(d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y.descriptor);
  Finalize(d, "a reduction");
  operations_.push_back(d);
}

void CudnnGraph::Reshape(const Tensor& x, const Tensor& y) {
  const cudnnBackendDescriptor_t d = Create(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  Set(d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.descriptor);
  Set(d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y.descriptor);
  Finalize(d, "a reshape");
  operations_.push_back(d);
}

absl::StatusOr<CudnnPlan> CudnnGraph::Plan(const CudnnTarget& target) && {
  const CudnnLibrary& library = descriptors_.library();
  cudnnBackendDescriptor_t device = nullptr;
  if (target.handle == nullptr) {
    device = Create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    Set(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
        target.description.size(), target.description.data());
    Finalize(device, "the description of a device");
  }
  const cudnnBackendDescriptor_t graph = Create(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  Set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations_.size(),
      operations_.data());
  if (device == nullptr)
    Set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
  Finalize(graph, "the graph");

  const cudnnBackendDescriptor_t heuristics = Create(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
  Set(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  Set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (device != nullptr) Set(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
  Finalize(heuristics, "the heuristics for the graph");
  if (!status_.ok()) return status_;

  int64_t offered = 0;
  status_ =
      library.Check(library.get_attribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                          CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &offered, nullptr),
                    "the number of engines for the graph");
  std::vector<cudnnBackendDescriptor_t> engines(offered);
  for (cudnnBackendDescriptor_t& engine : engines)
    engine = Create(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  if (!status_.ok()) return status_;
  int64_t given = 0;
  status_ = library.Check(
      library.get_attribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                            CUDNN_TYPE_BACKEND_DESCRIPTOR, offered, &given, engines.data()),
      "the engines for the graph");
  if (!status_.ok()) return status_;

  absl::Status refusal = absl::UnimplementedError("cuDNN has no engine for this graph");
  for (int64_t i = 0; i < given; ++i) {
    const cudnnBackendDescriptor_t plan = Create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    Set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engines[i]);
    if (device != nullptr) {
      Set(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
    } else {
      Set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
    }
    Finalize(plan, "a plan");
    int64_t workspace_bytes = 0, count = 0;
    if (status_.ok()) {
      status_ = library.Check(library.get_attribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                    CUDNN_TYPE_INT64, 1, &count, &workspace_bytes),
                              "the workspace of a plan");
    }
    if (status_.ok()) {
      return CudnnPlan(std::move(descriptors_), plan, workspace_bytes,
                       static_cast<int>(operations_.size()));
    }
    refusal = status_;
    status_ = absl::OkStatus();
  }
  return refusal;
}

}  // namespace longspan::cuda
