// Transport: messages between the ranks of one job.
//
// Two kinds of calls:
//  - on a stream, for tensors: Exchange and the collectives are ordered after what was launched on
//  the stream before, and
//    complete by event. Collectives of a step are issued in one order on all ranks, after the
//    rank's last Exchange of that step (NCCL needs that; every transport is used so).
//  - on the calling thread, for small host data: AllGatherBytes, BroadcastBytes, Barrier, and, for
//  threads in the background, SendTagged and ReceiveTagged.
//
// Implementations: InProcessTransport (ranks are threads of one program), MpiTransport, and for
// GPUs NcclTransport and StagedTransport. Every one sums in rank order or in an order fixed by MPI
// or NCCL for a given number of ranks, so a repeated run gives the same bits.
//
// Failure: when a peer dies or calls Abort, every pending and later call fails with Unavailable, on
// every rank. Thread-safety: stream calls may come from several threads, one stream each; host
// calls from one thread at a time, tagged messages from any number of them.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_TRANSPORT_H_
#define LONGSPAN_PARALLEL_TRANSPORT_TRANSPORT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// One message of an exchange: contiguous memory, owned by the caller, untouched by it until the
// event is done.
struct Message {
  int peer = 0;       // rank it goes to, or comes from
  TensorView tensor;  // contiguous; sender and receiver agree on the byte count, zero-byte messages
                      // are not sent
};

class Transport {
 public:
  virtual ~Transport() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Ranks on this node (same host), this one included, and this rank's index among them.
  virtual int ranks_on_node() const = 0;
  virtual int rank_on_node() const = 0;
  // "mpi" or "in-process".
  virtual std::string name() const = 0;

  // Posts all receives, then all sends, and returns at once. Messages between the same two ranks
  // match in order. Right even if no send completes before its receive is posted. The event is done
  // when every buffer may be used again. The exchange waits for what `stream` holds already;
  // `stream` does not wait for the exchange: use stream.WaitFor.
  virtual Event Exchange(std::vector<Message> sends, std::vector<Message> receives,
                         Stream& stream) = 0;

  // Collectives run on the stream: work launched after them sees the result.
  // Element-wise sum over ranks, in place, f32 or f64, contiguous.
  virtual void AllReduceSum(TensorView tensor, Stream& stream) = 0;
  // `input` has size() equal contiguous parts; the sum over ranks of part rank() goes to `output`.
  //  - f32: travels and is summed as f32.
  //  - bf16: travels in half the bytes, and `output` is of Bf16SumType(). Where that is f32, the
  //  parts of
  //    all ranks are added in rank order in f32, the same bits on every such transport. Where it is
  //    bf16 (NCCL), each of up to size() - 1 additions rounds to bf16, in an order that is NCCL's:
  //    the error is at most (size() - 1) * 2^-8 of the sum of the parts' magnitudes.
  // `output` may be its part of `input` where the types are equal. The rest of `input` is undefined
  // afterwards.
  virtual void ReduceScatterSum(TensorView input, TensorView output, Stream& stream) = 0;
  // The type in which ReduceScatterSum gives sums of bf16 on such a stream: f32 or bf16.
  virtual DType Bf16SumType(DeviceKind) const { return DType::kF32; }
  // The inverse layout: part r of `output` comes from rank r. `input` may be part rank() of
  // `output`.
  virtual void AllGather(TensorView input, TensorView output, Stream& stream) = 0;

  // Host calls; collective, blocking.
  // Every rank's bytes, by rank. Sizes may differ.
  virtual absl::StatusOr<std::vector<std::string>> AllGatherBytes(std::string_view bytes) = 0;
  // `bytes` of rank `root`, on every rank.
  virtual absl::StatusOr<std::string> BroadcastBytes(std::string_view bytes, int root) = 0;
  virtual absl::Status Barrier() = 0;

  // Tagged messages: bytes from one rank's host to another's, for what goes on in the background,
  // such as the votes of a checkpoint. They take no part in the order of exchanges and collectives,
  // and one that is never asked for disturbs no other.
  //
  // Returns at once; `bytes` is copied. `peer` may be this rank.
  virtual absl::Status SendTagged(int peer, std::string_view tag, std::string_view bytes) = 0;
  // The oldest message from `peer` with that very tag. DeadlineExceeded if there is none within
  // `timeout`; it may still come, and be received by a later call.
  virtual absl::StatusOr<std::string> ReceiveTagged(int peer, std::string_view tag,
                                                    absl::Duration timeout) = 0;
  // Drops messages that have arrived and whose tags begin with `prefix`.
  virtual void DropTagged(std::string_view prefix) = 0;

  // Ends the job on all ranks: under MPI the process exits non-zero; in one process every rank's
  // calls fail. Callable from any thread, once; `reason` has been printed by the caller.
  virtual void Abort(const std::string& reason) = 0;

  // Bytes handed to Exchange as sends so far.
  virtual int64_t exchanged_bytes() const = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_TRANSPORT_H_
