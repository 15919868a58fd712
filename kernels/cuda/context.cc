#include "kernels/cuda/context.h"

#include <utility>

#include "kernels/cuda/cudnn_session.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/stream_memory.h"
#include "kernels/device/cuda_status.h"

namespace longspan::cuda {

CudaContext::CudaContext() = default;
CudaContext::~CudaContext() = default;

CudaContext& CudaContext::Of(const Stream& stream) {
  return *static_cast<CudaContext*>(
      stream.device().OperatorState([] { return std::make_shared<CudaContext>(); }));
}

absl::StatusOr<CudnnSession*> CudaContext::Cudnn() {
  std::lock_guard lock(mutex_);
  if (cudnn_ == nullptr) {
    absl::StatusOr<std::unique_ptr<CudnnSession>> opened = CudnnSession::Open();
    if (!opened.ok()) return opened.status();
    cudnn_ = *std::move(opened);
  }
  return cudnn_.get();
}

absl::StatusOr<MatrixProducts*> CudaContext::Products() {
  std::lock_guard lock(mutex_);
  if (products_ == nullptr) {
    absl::StatusOr<std::unique_ptr<MatrixProducts>> opened = MatrixProducts::Open();
    if (!opened.ok()) return opened.status();
    products_ = *std::move(opened);
  }
  return products_.get();
}

StreamMemory& CudaContext::MemoryOf(const Stream& stream) {
  const cudaStream_t native = Native(stream);
  std::lock_guard lock(mutex_);
  std::unique_ptr<StreamMemory>& memory = memory_[native];
  if (memory == nullptr) memory = std::make_unique<StreamMemory>(native, stream.device().memory());
  return *memory;
}

absl::StatusOr<std::unique_ptr<CudnnSession>> CudnnSession::Open() {
  absl::StatusOr<const CudnnLibrary*> library = CudnnLibrary::Load();
  if (!library.ok()) return library.status();
  auto session = std::make_unique<CudnnSession>();
  session->library = *library;
  const absl::Status status =
      session->library->Check(session->library->create(&session->handle), "cudnnCreate");
  if (!status.ok()) return status;
  session->attention = std::make_unique<AttentionPlanner>(
      *session->library, CudnnTarget{session->handle, std::string()});
  return session;
}

CudnnSession::~CudnnSession() {
  attention.reset();
  if (handle != nullptr) (void)library->destroy(handle);
}

void Report(cudaError_t error, const char* call, Stream& stream) {
  if (error != cudaSuccess) stream.Fail(CudaStatus(error, call));
}

}  // namespace longspan::cuda
