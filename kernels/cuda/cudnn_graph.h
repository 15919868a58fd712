// A graph of cuDNN operations and the plan that runs it, over the backend C API.
//
// CudnnGraph collects tensors and operations; the first call that fails makes the rest do nothing
// and is what Plan() returns, so that a graph is written down without a check on every line.
// Not thread-safe; a finished CudnnPlan may be run from one thread at a time.
#ifndef LONGSPAN_KERNELS_CUDA_CUDNN_GRAPH_H_
#define LONGSPAN_KERNELS_CUDA_CUDNN_GRAPH_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cudnn_library.h"

namespace longspan::cuda {

// Owns cuDNN descriptors. Move-only.
class CudnnDescriptors {
 public:
  explicit CudnnDescriptors(const CudnnLibrary& library) : library_(&library) {}
  ~CudnnDescriptors();
  CudnnDescriptors(CudnnDescriptors&& other) noexcept;
  CudnnDescriptors& operator=(CudnnDescriptors&& other) noexcept;

  const CudnnLibrary& library() const { return *library_; }
  // A new one, nullptr and an error in `status` where that fails.
  cudnnBackendDescriptor_t Create(cudnnBackendDescriptorType_t type, absl::Status& status);

 private:
  void Destroy();
  const CudnnLibrary* library_;
  std::vector<cudnnBackendDescriptor_t> owned_;
};

// What plans are made for: the GPU of a handle, or one that is only described (JSON, as cuDNN
// writes it) so that plans can be made and their workspace known on a machine without one.
struct CudnnTarget {
  cudnnHandle_t handle = nullptr;
  std::string description;  // used where there is no handle
};

// The H100 (SXM, 80 GB), described.
std::string DescribedH100();

// A graph made executable.
class CudnnPlan {
 public:
  // A tensor of the graph and its memory: device memory, or host memory of a scalar.
  struct Binding {
    int64_t id;
    void* memory;
  };

  int64_t workspace_bytes() const { return workspace_bytes_; }
  int operations() const { return operations_; }
  // Queues the graph's work on the stream of `handle`. The workspace is device memory.
  absl::Status Execute(cudnnHandle_t handle, const std::vector<Binding>& bindings,
                       void* workspace) const;

 private:
  friend class CudnnGraph;
  CudnnPlan(CudnnDescriptors descriptors, cudnnBackendDescriptor_t plan, int64_t workspace_bytes,
            int operations)
      : descriptors_(std::move(descriptors)),
        plan_(plan),
        workspace_bytes_(workspace_bytes),
        operations_(operations) {}

  CudnnDescriptors descriptors_;
  cudnnBackendDescriptor_t plan_;
  int64_t workspace_bytes_;
  int operations_;
};

class CudnnGraph {
 public:
  using Extents = std::vector<int64_t>;
  // A value; the graph owns the descriptor.
  struct Tensor {
    cudnnBackendDescriptor_t descriptor = nullptr;
    Extents extents, strides;
    int64_t id = 0;
  };

  explicit CudnnGraph(const CudnnLibrary& library);

  // A tensor in memory that is bound at every run. `offsets` (may be nullptr): where each batch
  // entry starts, in elements, instead of the outermost stride.
  Tensor Memory(Extents extents, Extents strides, cudnnDataType_t type,
                const Tensor* offsets = nullptr);
  // A value between operations.
  Tensor Virtual(Extents extents, Extents strides, cudnnDataType_t type,
                 const Tensor* offsets = nullptr);
  Tensor VirtualLike(const Tensor& x, cudnnDataType_t type);
  // A number that is bound as host memory.
  Tensor Scalar(cudnnDataType_t type);

  // y = mode(x) or mode(x, b), in FP32.
  void Pointwise(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor& y);
  void Pointwise(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor& b, const Tensor& y,
                 cudnnDataType_t precision = CUDNN_DATA_FLOAT);
  // The index of each element along `axis`, shaped like x, as int32.
  Tensor Index(const Tensor& x, int64_t axis);
  // mask ? x : b.
  Tensor Select(const Tensor& mask, const Tensor& x, const Tensor& b);
  // c = a * b, accumulated in FP32. The extents of each batch entry are those of the overrides
  // (int32 {batch, 1, 1, 1}) where given.
  struct MatmulExtents {
    const Tensor* m = nullptr;
    const Tensor* n = nullptr;
    const Tensor* k = nullptr;
    bool pads_with_zeros = false;
  };
  void Matmul(const Tensor& a, const Tensor& b, const Tensor& c, const MatmulExtents& extents);
  // Along the dimensions in which y has extent 1 or is shorter.
  void Reduce(cudnnReduceTensorOp_t operation, const Tensor& x, const Tensor& y);
  // The same elements with other extents or strides.
  void Reshape(const Tensor& x, const Tensor& y);

  const absl::Status& status() const { return status_; }
  // The first of the heuristics' plans that finalizes. The graph is used up.
  absl::StatusOr<CudnnPlan> Plan(const CudnnTarget& target) &&;

 private:
  cudnnBackendDescriptor_t Create(cudnnBackendDescriptorType_t type);
  void Set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
           cudnnBackendAttributeType_t type, int64_t count, const void* values);
  void Set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
           cudnnBackendDescriptor_t value);
  void Finalize(cudnnBackendDescriptor_t descriptor, const char* what);
  Tensor MakeTensor(Extents extents, Extents strides, cudnnDataType_t type, bool is_virtual,
                    bool by_value, const Tensor* offsets);
  void AddPointwise(cudnnPointwiseMode_t mode, cudnnDataType_t precision, int64_t axis,
                    const Tensor& x, const Tensor* b, const Tensor* mask, const Tensor& y);

  CudnnDescriptors descriptors_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  int64_t next_id_ = 1;
  absl::Status status_;
};

}  // namespace longspan::cuda

#endif  // LONGSPAN_KERNELS_CUDA_CUDNN_GRAPH_H_
