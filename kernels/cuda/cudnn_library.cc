#include "kernels/cuda/cudnn_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace longspan::cuda {
namespace {

// The first version whose graphs of attention are those that cudnn_attention.cc builds.
constexpr int64_t kOldestServed = 91100;

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

absl::StatusOr<const CudnnLibrary*> LoadOnce() {
  void* const opened = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("attention on a GPU needs cuDNN 9, which cannot be loaded (", dlerror(),
                     "); install it, or name its folder in LD_LIBRARY_PATH"));
  }
  static CudnnLibrary library;
  if (!Find(opened, "cudnnGetVersion", library.get_version) ||
      !Find(opened, "cudnnGetLastErrorString", library.get_last_error) ||
      !Find(opened, "cudnnCreate", library.create) ||
      !Find(opened, "cudnnDestroy", library.destroy) ||
      !Find(opened, "cudnnSetStream", library.set_stream) ||
      !Find(opened, "cudnnBackendCreateDescriptor", library.create_descriptor) ||
      !Find(opened, "cudnnBackendDestroyDescriptor", library.destroy_descriptor) ||
      !Find(opened, "cudnnBackendFinalize", library.finalize) ||
      !Find(opened, "cudnnBackendSetAttribute", library.set_attribute) ||
      !Find(opened, "cudnnBackendGetAttribute", library.get_attribute) ||
      !Find(opened, "cudnnBackendExecute", library.execute)) {
    return absl::FailedPreconditionError(
        "the libcudnn.so.9 that was loaded lacks functions of its backend interface");
  }
  library.version = static_cast<int64_t>(library.get_version());
  const std::string refusal = WhyCudnnIsRefused(library.version);
  if (!refusal.empty()) return absl::FailedPreconditionError(refusal);
  return &library;
}

}  // namespace

std::string CudnnVersionText(int64_t version) {
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

std::string WhyCudnnIsRefused(int64_t version) {
  for (const int64_t wrong : {91000, 91001, 91400}) {
    if (version == wrong) {
      return absl::StrCat("cuDNN ", CudnnVersionText(version),
                          " gives wrong answers in attention; install 9.19");
    }
  }
  if (version / 10000 != CUDNN_MAJOR || version < kOldestServed) {
    return absl::StrCat("cuDNN ", CudnnVersionText(version), " is not served; install 9.19");
  }
  return "";
}

absl::StatusOr<const CudnnLibrary*> CudnnLibrary::Load() {
  static const absl::StatusOr<const CudnnLibrary*> loaded = LoadOnce();
  return loaded;
}

absl::Status CudnnLibrary::Check(cudnnStatus_t status, const char* call) const {
  if (status == CUDNN_STATUS_SUCCESS) return absl::OkStatus();
  char message[512] = "";
  get_last_error(message, sizeof(message));
  const std::string text =
      absl::StrCat("cuDNN: ", call, ": ", message, " (status ", static_cast<int>(status), ")");
  if (status / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000) return absl::UnimplementedError(text);
  return absl::InternalError(text);
}

}  // namespace longspan::cuda
