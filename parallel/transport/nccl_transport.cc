#include "parallel/transport/nccl_transport.h"

#ifdef LONGSPAN_HAVE_NCCL

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/device/cuda_status.h"
#include "kernels/device/memory.h"
#include "parallel/transport/exchange_trace.h"
#include "parallel/transport/nccl_library.h"
#include "parallel/transport/nccl_watch.h"

namespace longspan {
namespace {

ncclDataType_t SummedType(DType dtype) {
  LONGSPAN_CHECK(dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16,
                 "reductions are of f32, f64 or bf16");
  return dtype == DType::kF32 ? ncclFloat32 : dtype == DType::kF64 ? ncclFloat64 : ncclBfloat16;
}

cudaStream_t Native(const Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }

// The same outcome everywhere: the first rank's that is not OK.
absl::Status AgreeOn(Transport& host, const absl::Status& mine) {
  const absl::StatusOr<std::vector<std::string>> all =
      host.AllGatherBytes(mine.ok() ? std::string() : absl::StrCat("-", mine.message()));
  if (!all.ok()) return all.status();
  for (int rank = 0; rank < host.size(); ++rank) {
    if ((*all)[rank].empty()) continue;
    return absl::FailedPreconditionError(absl::StrCat("rank ", rank, ": ", (*all)[rank].substr(1)));
  }
  return absl::OkStatus();
}

// "HOST BUS" of this rank's GPU, as no other GPU of the job is called.
absl::StatusOr<std::string> NameOfGpu(const Stream& stream) {
  (void)Native(stream);  // makes the GPU current
  char node[256] = "", bus[32] = "";
  gethostname(node, sizeof(node) - 1);
  int index = 0;
  cudaError_t error = cudaGetDevice(&index);
  if (error == cudaSuccess) error = cudaDeviceGetPCIBusId(bus, sizeof(bus), index);
  if (absl::Status status = CudaStatus(error, "the GPU's bus"); !status.ok()) return status;
  return absl::StrCat(node, " ", bus);
}

class NcclTransport : public Transport {
 public:
  NcclTransport(Transport& host, Device& device, const NcclLibrary& library,
                const NcclOptions& options)
      : host_(host), nccl_(library), options_(options), messages_(device.CreateStream("nccl")) {}

  ~NcclTransport() override {
    // Watched to the end: another rank may never come to the last messages.
    absl::Status status = messages_.Synchronize();
    if (watch_ != nullptr) status.Update(watch_->Stop());
    if (communicator_ != nullptr && (watch_ == nullptr || !watch_->aborted())) {
      (void)Native(messages_);
      (void)(status.ok() ? nccl_.comm_destroy(communicator_) : nccl_.comm_abort(communicator_));
    }
  }

  absl::Status Prepare() {
    (void)Native(messages_);
    return messages_.Synchronize();
  }

  // Collective.
  absl::Status Connect(const ncclUniqueId& id) {
    (void)Native(messages_);
    absl::Status status = nccl_.Check(nccl_.comm_init_rank(&communicator_, size(), id, rank()),
                                      "ncclCommInitRank", rank());
    if (!status.ok()) return status;
    // Ranks that are threads of one program hear of an abort from their host transport, and no
    // other way: a message that nobody sends says nothing but that.
    const auto job = [this] {
      absl::Status heard = host_.ReceiveTagged(rank(), "nccl watch", absl::ZeroDuration()).status();
      return absl::IsDeadlineExceeded(heard) ? absl::OkStatus() : heard;
    };
    watch_ = std::make_unique<NcclWatch>(nccl_, communicator_, rank(),
                                         NcclWatch::Options{options_.timeout, job});
    return absl::OkStatus();
  }

  // Collective: connections are made by first use, and take time and memory then. Those of
  // exchanges are ConnectPeers', these are those of collectives.
  absl::Status WarmUp(Device& device) {
    constexpr int64_t kElements = 16;  // a rank
    absl::StatusOr<Buffer> buffer = Buffer::AllocateZeroed(
        device.memory(), size() * kElements * SizeOf(DType::kF32), "transport", Placement::kDevice);
    if (!buffer.ok()) return buffer.status();
    Stream stream = device.CreateStream("warm up");
    const TensorView all = buffer->Tensor(DType::kF32, {size() * kElements}),
                     part = all.Slice(0, rank() * kElements, (rank() + 1) * kElements);
    AllReduceSum(all, stream);
    ReduceScatterSum(all, part, stream);
    AllGather(part, all, stream);
    return stream.Synchronize();
  }

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int ranks_on_node() const override { return host_.ranks_on_node(); }
  int rank_on_node() const override { return host_.rank_on_node(); }
  std::string name() const override {
    return absl::StrCat("nccl ", NcclVersionText(nccl_.version));
  }

  Event Exchange(std::vector<Message> sends, std::vector<Message> receives,
                 Stream& stream) override {
    if (stream.kind() == DeviceKind::kCpu) {
      return host_.Exchange(std::move(sends), std::move(receives), stream);
    }
    const ExchangeTrace trace(sends, receives, stream);
    const std::lock_guard lock(mutex_);
    // The messages wait for the stream, the stream not for them.
    messages_.WaitFor(stream.Record());
    NcclOperation operation{"an exchange"};
    for (const Message& message : sends) {
      operation.bytes += message.tensor.bytes();
      operation.to.push_back(message.peer);
    }
    for (const Message& message : receives) {
      operation.bytes += message.tensor.bytes();
      operation.from.push_back(message.peer);
    }
    absl::Status status;
    {
      const StreamSpan span(messages_, trace.label());
      const cudaStream_t messages = Native(messages_);
      status = watch_->Issue(std::move(operation), messages_,
                             [&] { return Post(sends, receives, messages); });
    }
    if (!status.ok()) messages_.Fail(status);
    return messages_.Record();
  }

  void AllReduceSum(TensorView tensor, Stream& stream) override {
    LONGSPAN_CHECK(tensor.contiguous(), "reductions need contiguous tensors");
    if (stream.kind() == DeviceKind::kCpu) return host_.AllReduceSum(tensor, stream);
    if (tensor.empty()) return;
    Collective("ncclAllReduce", tensor, stream, [&](cudaStream_t native) {
      return nccl_.all_reduce(tensor.raw(), tensor.raw(), static_cast<size_t>(tensor.elements()),
                              SummedType(tensor.dtype()), ncclSum, communicator_, native);
    });
  }

  void ReduceScatterSum(TensorView input, TensorView output, Stream& stream) override {
    if (stream.kind() == DeviceKind::kCpu) return host_.ReduceScatterSum(input, output, stream);
    LONGSPAN_CHECK(input.contiguous() && output.contiguous() && input.dtype() == output.dtype() &&
                       input.elements() == output.elements() * size(),
                   "reduce-scatter: input is size() contiguous parts like output");
    if (output.empty()) return;
    Collective("ncclReduceScatter", input, stream, [&](cudaStream_t native) {
      return nccl_.reduce_scatter(input.raw(), output.raw(), static_cast<size_t>(output.elements()),
                                  SummedType(input.dtype()), ncclSum, communicator_, native);
    });
  }

  DType Bf16SumType(DeviceKind kind) const override {
    return kind == DeviceKind::kCpu ? host_.Bf16SumType(kind) : DType::kBF16;
  }

  void AllGather(TensorView input, TensorView output, Stream& stream) override {
    LONGSPAN_CHECK(input.contiguous() && output.contiguous() && input.dtype() == output.dtype() &&
                       output.elements() == input.elements() * size(),
                   "all-gather: output is size() contiguous parts like input");
    if (stream.kind() == DeviceKind::kCpu) return host_.AllGather(input, output, stream);
    if (input.empty()) return;
    Collective("ncclAllGather", output, stream, [&](cudaStream_t native) {
      return nccl_.all_gather(input.raw(), output.raw(), static_cast<size_t>(input.bytes()),
                              ncclUint8, communicator_, native);
    });
  }

  absl::StatusOr<std::vector<std::string>> AllGatherBytes(std::string_view bytes) override {
    return host_.AllGatherBytes(bytes);
  }
  absl::StatusOr<std::string> BroadcastBytes(std::string_view bytes, int root) override {
    return host_.BroadcastBytes(bytes, root);
  }
  absl::Status Barrier() override { return host_.Barrier(); }
  absl::Status SendTagged(int peer, std::string_view tag, std::string_view bytes) override {
    return host_.SendTagged(peer, tag, bytes);
  }
  absl::StatusOr<std::string> ReceiveTagged(int peer, std::string_view tag,
                                            absl::Duration timeout) override {
    return host_.ReceiveTagged(peer, tag, timeout);
  }
  void DropTagged(std::string_view prefix) override { host_.DropTagged(prefix); }
  void Abort(const std::string& reason) override { host_.Abort(reason); }
  int64_t exchanged_bytes() const override { return host_.exchanged_bytes() + exchanged_bytes_; }

 private:
  // One group: right whatever the order in which ranks come to it.
  absl::Status Post(const std::vector<Message>& sends, const std::vector<Message>& receives,
                    cudaStream_t native) {
    absl::Status status = nccl_.Check(nccl_.group_start(), "ncclGroupStart", rank());
    if (!status.ok()) return status;
    const auto post = [&](const Message& message, bool send) {
      const TensorView& tensor = message.tensor;
      LONGSPAN_CHECK(message.peer >= 0 && message.peer < size(), "exchange: no such peer");
      LONGSPAN_CHECK(tensor.contiguous(), "exchange: messages are contiguous");
      if (tensor.empty() || !status.ok()) return;
      const auto bytes = static_cast<size_t>(tensor.bytes());
      status = send ? nccl_.Check(nccl_.send(tensor.raw(), bytes, ncclUint8, message.peer,
                                             communicator_, native),
                                  "ncclSend", rank())
                    : nccl_.Check(nccl_.recv(tensor.raw(), bytes, ncclUint8, message.peer,
                                             communicator_, native),
                                  "ncclRecv", rank());
      if (send) exchanged_bytes_ += tensor.bytes();
    };
    for (const Message& message : receives) post(message, /*send=*/false);
    for (const Message& message : sends) post(message, /*send=*/true);
    status.Update(nccl_.Check(nccl_.group_end(), "ncclGroupEnd", rank()));
    return status;
  }

  // `whole`: the larger side.
  template <typename Call>
  void Collective(const char* name, const TensorView& whole, Stream& stream, const Call& call) {
    const std::lock_guard lock(mutex_);
    const cudaStream_t native = Native(stream);
    const absl::Status status = watch_->Issue({.name = name, .bytes = whole.bytes()}, stream, [&] {
      return nccl_.Check(call(native), name, rank());
    });
    if (!status.ok()) stream.Fail(status);
  }

  Transport& host_;
  const NcclLibrary& nccl_;
  const NcclOptions options_;
  ncclComm_t communicator_ = nullptr;
  std::unique_ptr<NcclWatch> watch_;
  std::mutex mutex_;  // ranks must issue alike; NCCL takes one thread at a time
  std::atomic<int64_t> exchanged_bytes_ = 0;
  Stream messages_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> OpenNcclTransport(Transport& host, Device& device,
                                                             const NcclOptions& options) {
  const absl::StatusOr<const NcclLibrary*> library = NcclLibrary::Load();
  if (absl::Status status = AgreeOn(host, library.status()); !status.ok()) return status;
  auto transport = std::make_unique<NcclTransport>(host, device, **library, options);
  {
    Stream stream = device.CreateStream("which");
    const absl::StatusOr<std::string> mine = NameOfGpu(stream);
    absl::Status ready = mine.status();
    ready.Update(transport->Prepare());
    if (absl::Status status = AgreeOn(host, ready); !status.ok()) return status;
    const absl::StatusOr<std::vector<std::string>> all = host.AllGatherBytes(*mine);
    if (!all.ok()) return all.status();
    std::map<std::string, int> holders;
    for (int rank = 0; rank < host.size(); ++rank) {
      const auto [holder, first] = holders.emplace((*all)[rank], rank);
      if (first) continue;
      return absl::FailedPreconditionError(absl::StrCat("ranks ", holder->second, " and ", rank,
                                                        " share the GPU ", (*all)[rank],
                                                        ", and NCCL wants one for each rank"));
    }
  }
  ncclUniqueId id = {};
  absl::Status status;
  if (host.rank() == 0)
    status = (*library)->Check((*library)->get_unique_id(&id), "ncclGetUniqueId", 0);
  if (status = AgreeOn(host, status); !status.ok()) return status;
  const absl::StatusOr<std::string> shared =
      host.BroadcastBytes(std::string_view(reinterpret_cast<const char*>(&id), sizeof(id)), 0);
  if (!shared.ok()) return shared.status();
  std::memcpy(&id, shared->data(), sizeof(id));
  status = transport->Connect(id);
  if (status = AgreeOn(host, status); !status.ok()) return status;
  status = transport->WarmUp(device);
  if (status = AgreeOn(host, status); !status.ok()) return status;
  return transport;
}

absl::StatusOr<std::string> NcclVersion() {
  const absl::StatusOr<const NcclLibrary*> library = NcclLibrary::Load();
  if (!library.ok()) return library.status();
  return NcclVersionText((*library)->version);
}

}  // namespace longspan

#else  // LONGSPAN_HAVE_NCCL

namespace longspan {

absl::StatusOr<std::unique_ptr<Transport>> OpenNcclTransport(Transport&, Device&,
                                                             const NcclOptions&) {
  return NcclVersion().status();
}

absl::StatusOr<std::string> NcclVersion() {
  return absl::FailedPreconditionError(
      "this program was built without NCCL: cmake found no nccl.h beside CUDA's headers");
}

}  // namespace longspan

#endif  // LONGSPAN_HAVE_NCCL
