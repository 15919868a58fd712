// The entry points of NCCL that we call, looked up at run time: a program built with CUDA starts on
// a machine without NCCL, and ranks then speak through pinned memory.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_NCCL_LIBRARY_H_
#define LONGSPAN_PARALLEL_TRANSPORT_NCCL_LIBRARY_H_

#include <nccl.h>

#include <string>

#include "absl/status/statusor.h"

namespace longspan {

// Immutable and thread-safe. Never unloaded.
struct NcclLibrary {
  // FailedPrecondition where the library is missing, older than 2.18, or of another major version
  // than it was compiled for.
  static absl::StatusOr<const NcclLibrary*> Load();

  // OK, or Unavailable with the call, this rank and NCCL's own words.
  absl::Status Check(ncclResult_t result, const char* call, int rank) const;

  int version = 0;  // 22809
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetErrorString) get_error_string = nullptr;
  decltype(&ncclGetLastError) get_last_error = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRank) comm_init_rank = nullptr;
  decltype(&ncclCommDestroy) comm_destroy = nullptr;
  decltype(&ncclCommAbort) comm_abort = nullptr;
  decltype(&ncclCommGetAsyncError) get_async_error = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) recv = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclReduceScatter) reduce_scatter = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
};

// 22809 -> "2.28.9".
std::string NcclVersionText(int version);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_NCCL_LIBRARY_H_
