#include "parallel/transport/nccl_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

constexpr int kOldestServed = 21800;

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

absl::StatusOr<const NcclLibrary*> LoadOnce() {
  void* const opened = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("NCCL 2 cannot be loaded (", dlerror(),
                     "); install it, or name its folder in LD_LIBRARY_PATH"));
  }
  static NcclLibrary library;
  if (!Find(opened, "ncclGetVersion", library.get_version) ||
      !Find(opened, "ncclGetErrorString", library.get_error_string) ||
      !Find(opened, "ncclGetLastError", library.get_last_error) ||
      !Find(opened, "ncclGetUniqueId", library.get_unique_id) ||
      !Find(opened, "ncclCommInitRank", library.comm_init_rank) ||
      !Find(opened, "ncclCommDestroy", library.comm_destroy) ||
      !Find(opened, "ncclCommAbort", library.comm_abort) ||
      !Find(opened, "ncclCommGetAsyncError", library.get_async_error) ||
      !Find(opened, "ncclGroupStart", library.group_start) ||
      !Find(opened, "ncclGroupEnd", library.group_end) || !Find(opened, "ncclSend", library.send) ||
      !Find(opened, "ncclRecv", library.recv) ||
      !Find(opened, "ncclAllReduce", library.all_reduce) ||
      !Find(opened, "ncclReduceScatter", library.reduce_scatter) ||
      !Find(opened, "ncclAllGather", library.all_gather)) {
    return absl::FailedPreconditionError("the libnccl.so.2 that was loaded lacks functions");
  }
  if (library.get_version(&library.version) != ncclSuccess ||
      library.version / 10000 != NCCL_MAJOR || library.version < kOldestServed) {
    return absl::FailedPreconditionError(absl::StrCat("NCCL ", NcclVersionText(library.version),
                                                      " is not served; install ", NCCL_MAJOR, ".",
                                                      NCCL_MINOR, " (2.18 is the oldest)"));
  }
  return &library;
}

}  // namespace

std::string NcclVersionText(int version) {
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::StatusOr<const NcclLibrary*> NcclLibrary::Load() {
  static const absl::StatusOr<const NcclLibrary*> loaded = LoadOnce();
  return loaded;
}

absl::Status NcclLibrary::Check(ncclResult_t result, const char* call, int rank) const {
  if (result == ncclSuccess) return absl::OkStatus();
  const char* const detail = get_last_error(nullptr);
  return absl::UnavailableError(
      absl::StrCat("NCCL: ", call, " on rank ", rank, ": ", get_error_string(result),
                   detail != nullptr && *detail != '\0' ? absl::StrCat(" (", detail, ")") : ""));
}

}  // namespace longspan
