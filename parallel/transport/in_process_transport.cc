#include "parallel/transport/in_process_transport.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "parallel/transport/exchange_trace.h"
#include "parallel/transport/in_process_meetings.h"
#include "parallel/transport/in_process_messages.h"
#include "parallel/transport/in_process_tagged.h"
#include "parallel/transport/rank_order_sum.h"

namespace longspan {

struct InProcessNetwork::State {
  State(int size, const InProcessOptions& options)
      : ranks(size), messages(size, options), meetings(size), tagged(size), connected(size) {}

  void Abort(const std::string& reason) {
    const absl::Status status =
        absl::UnavailableError(absl::StrCat("the job was aborted: ", reason));
    messages.Fail(status);
    meetings.Fail(status);
    tagged.Fail(status);
  }

  const int ranks;
  InProcessMessages messages;
  InProcessMeetings meetings;
  InProcessTagged tagged;
  std::vector<std::atomic<bool>> connected;
};

namespace {

using Arrival = InProcessMeetings::Arrival;
using Arrivals = std::shared_ptr<const std::vector<Arrival>>;

std::vector<const void*> Inputs(const std::vector<Arrival>& arrivals, int64_t byte_offset) {
  std::vector<const void*> inputs;
  for (const Arrival& arrival : arrivals) {
    inputs.push_back(static_cast<const char*>(arrival.input) + byte_offset);
  }
  return inputs;
}

// output = the sum of `inputs`, of type `dtype`, in rank order. Device memory is added up on the
// host: with several ranks on one GPU that is for tests, and the bits are those of every other
// transport.
absl::Status Sum(const std::vector<const void*>& inputs, DType dtype, int64_t elements,
                 void* output, Device& device) {
  if (device.kind() == DeviceKind::kCpu) {
    SumInRankOrder(inputs, dtype, elements, output, device.threads());
    return absl::OkStatus();
  }
  const int64_t bytes = elements * SizeOf(dtype);
  const int64_t sum_bytes = dtype == DType::kBF16 ? elements * SizeOf(DType::kF32) : bytes;
  std::vector<std::vector<char>> copies;
  std::vector<const void*> on_host;
  for (const void* input : inputs) {
    copies.emplace_back(static_cast<size_t>(bytes));
    on_host.push_back(copies.back().data());
    absl::Status status = device.CopyNow(input, copies.back().data(), bytes);
    if (!status.ok()) return status;
  }
  std::vector<char> sum(static_cast<size_t>(sum_bytes));
  SumInRankOrder(on_host, dtype, elements, sum.data(), device.threads());
  return device.CopyNow(sum.data(), output, sum_bytes);
}

// Elements where part `rank` of an all-reduce begins: every rank sums one part. Whole cache lines,
// so that two ranks never write to one.
int64_t PartBegin(int64_t elements, int ranks, int rank) {
  constexpr int64_t kAlignment = 16;
  const int64_t lines = (elements + kAlignment - 1) / kAlignment;
  return std::min(elements, lines * rank / ranks * kAlignment);
}

}  // namespace

class InProcessNetwork::Endpoint : public Transport {
 public:
  Endpoint(std::shared_ptr<State> state, int rank) : state_(std::move(state)), rank_(rank) {}
  ~Endpoint() override {
    state_->messages.Leave(rank_);
    state_->meetings.Leave(rank_);
    state_->tagged.Leave(rank_);
  }

  int rank() const override { return rank_; }
  int size() const override { return state_->ranks; }
  int ranks_on_node() const override { return state_->ranks; }
  int rank_on_node() const override { return rank_; }
  std::string name() const override { return "in-process"; }

  Event Exchange(std::vector<Message> sends, std::vector<Message> receives,
                 Stream& stream) override {
    for (const Message& message : receives) CheckMessage(message);
    for (const Message& message : sends) {
      CheckMessage(message);
      exchanged_bytes_ += message.tensor.bytes();
    }
    auto promise = std::make_shared<EventPromise>();
    const Event event = promise->event();
    const ExchangeTrace trace(sends, receives, stream);
    // Where a GPU is to copy, the host matches messages whose senders and receivers have come so
    // far, and has no part in what follows.
    Stream* copies = nullptr;
    if (stream.kind() != DeviceKind::kCpu) {
      std::call_once(copies_made_, [&] {
        copies_.emplace(stream.device().CreateStream("messages", StreamPriority::kLow));
      });
      copies = &*copies_;
    }
    stream.RunOnHost("exchange", [state = state_, rank = rank_, sends = std::move(sends),
                                  receives = std::move(receives), device = &stream.device(), copies,
                                  promise, trace] {
      trace.Posted(promise->event());
      state->messages.Post(rank, sends, receives, *device, copies, std::move(*promise));
      return absl::OkStatus();
    });
    return event;
  }

  void AllReduceSum(TensorView tensor, Stream& stream) override {
    LONGSPAN_CHECK(tensor.contiguous(), "reductions need contiguous tensors");
    if (AloneOnGpu(stream)) return;
    LaunchCollective(
        "all-reduce", absl::StrCat("all-reduce of ", tensor.elements(), " ", Name(tensor.dtype())),
        tensor, stream,
        [this, tensor](const Arrivals& arrivals, const MeetAgain& meet_again, Device& device) {
          const int64_t element = SizeOf(tensor.dtype());
          char* own = static_cast<char*>(tensor.raw());
          const int64_t begin = PartBegin(tensor.elements(), size(), rank_);
          const int64_t end = PartBegin(tensor.elements(), size(), rank_ + 1);
          // In place: of this rank's tensor the others read only their own parts.
          absl::Status status = Sum(Inputs(*arrivals, begin * element), tensor.dtype(), end - begin,
                                    own + begin * element, device);
          if (status.ok()) status = meet_again();
          for (int part = 0; part < size() && status.ok(); ++part) {
            if (part == rank_) continue;
            const int64_t from = PartBegin(tensor.elements(), size(), part) * element;
            const int64_t to = PartBegin(tensor.elements(), size(), part + 1) * element;
            status = device.CopyNow(static_cast<const char*>((*arrivals)[part].input) + from,
                                    own + from, to - from);
          }
          return status.ok() ? meet_again() : status;
        });
  }

  void ReduceScatterSum(TensorView input, TensorView output, Stream& stream) override {
    LONGSPAN_CHECK(input.contiguous() && output.contiguous() && output.dtype() == DType::kF32 &&
                       (input.dtype() == DType::kF32 || input.dtype() == DType::kBF16) &&
                       input.elements() == output.elements() * size(),
                   "reduce-scatter: input is size() contiguous parts like output");
    if (AloneOnGpu(stream) && input.dtype() == output.dtype()) {
      return CopyAlone(input, output, stream);
    }
    LaunchCollective("reduce-scatter",
                     absl::StrCat("reduce-scatter of ", input.elements(), " ", Name(input.dtype())),
                     input, stream,
                     [this, output, dtype = input.dtype()](
                         const Arrivals& arrivals, const MeetAgain& meet_again, Device& device) {
                       const int64_t begin = rank_ * output.elements() * SizeOf(dtype);
                       const absl::Status status = Sum(Inputs(*arrivals, begin), dtype,
                                                       output.elements(), output.raw(), device);
                       return status.ok() ? meet_again() : status;
                     });
  }

  void AllGather(TensorView input, TensorView output, Stream& stream) override {
    LONGSPAN_CHECK(input.contiguous() && output.contiguous() && input.dtype() == output.dtype() &&
                       output.elements() == input.elements() * size(),
                   "all-gather: output is size() contiguous parts like input");
    if (AloneOnGpu(stream)) return CopyAlone(input, output, stream);
    LaunchCollective("all-gather",
                     absl::StrCat("all-gather of ", input.elements(), " ", Name(input.dtype())),
                     input, stream,
                     [this, input, output](const Arrivals& arrivals, const MeetAgain& meet_again,
                                           Device& device) {
                       absl::Status status;
                       for (int part = 0; part < size() && status.ok(); ++part) {
                         void* to = static_cast<char*>(output.raw()) + part * input.bytes();
                         const void* from = (*arrivals)[part].input;
                         if (to != from) status = device.CopyNow(from, to, input.bytes());
                       }
                       return status.ok() ? meet_again() : status;
                     });
  }

  absl::StatusOr<std::vector<std::string>> AllGatherBytes(std::string_view bytes) override {
    absl::StatusOr<Arrivals> arrivals =
        MeetOnHost({"all-gather of bytes", nullptr, std::string(bytes)});
    if (!arrivals.ok()) return arrivals.status();
    std::vector<std::string> result;
    for (const Arrival& arrival : **arrivals) result.push_back(arrival.bytes);
    return result;
  }

  absl::StatusOr<std::string> BroadcastBytes(std::string_view bytes, int root) override {
    LONGSPAN_CHECK(root >= 0 && root < size(), "broadcast: no such root");
    absl::StatusOr<Arrivals> arrivals =
        MeetOnHost({absl::StrCat("broadcast from rank ", root), nullptr,
                    rank_ == root ? std::string(bytes) : std::string()});
    if (!arrivals.ok()) return arrivals.status();
    return (**arrivals)[root].bytes;
  }

  absl::Status Barrier() override { return MeetOnHost({"barrier", nullptr, ""}).status(); }

  absl::Status SendTagged(int peer, std::string_view tag, std::string_view bytes) override {
    LONGSPAN_CHECK(peer >= 0 && peer < size(), "tagged message: no such peer");
    return state_->tagged.Send(rank_, peer, tag, bytes);
  }
  absl::StatusOr<std::string> ReceiveTagged(int peer, std::string_view tag,
                                            absl::Duration timeout) override {
    LONGSPAN_CHECK(peer >= 0 && peer < size(), "tagged message: no such peer");
    return state_->tagged.Receive(rank_, peer, tag, timeout);
  }
  void DropTagged(std::string_view prefix) override { state_->tagged.Drop(rank_, prefix); }

  void Abort(const std::string& reason) override { state_->Abort(reason); }
  int64_t exchanged_bytes() const override { return exchanged_bytes_; }

 private:
  using MeetAgain = std::function<absl::Status()>;
  using Collective = std::function<absl::Status(const Arrivals&, const MeetAgain&, Device&)>;

  void CheckMessage(const Message& message) const {
    LONGSPAN_CHECK(message.peer >= 0 && message.peer < size(), "exchange: no such peer");
    LONGSPAN_CHECK(message.tensor.contiguous(), "exchange: messages are contiguous");
  }

  // One rank on a GPU has nobody to meet on the host.
  bool AloneOnGpu(const Stream& stream) const {
    return size() == 1 && stream.kind() != DeviceKind::kCpu;
  }
  static void CopyAlone(const TensorView& input, const TensorView& output, Stream& stream) {
    if (input.raw() != output.raw()) stream.CopyBytes(input.raw(), output.raw(), input.bytes());
  }

  absl::StatusOr<Arrivals> MeetOnHost(Arrival arrival) {
    return state_->meetings.Meet(rank_, {.host = true, .call = host_calls_++}, std::move(arrival));
  }

  // Runs `body` on the stream once all ranks have come. It meets the others again before memory
  // that one rank wrote is read by another, and at its end, when nobody reads the caller's memory
  // any more.
  void LaunchCollective(const char* name, std::string purpose, TensorView input, Stream& stream,
                        Collective body) {
    const int64_t call = stream_calls_++;
    Device* device = &stream.device();
    const Event ended = stream.RunOnHost(
        name,
        [this, purpose = std::move(purpose), input, call, device,
         body = std::move(body)]() -> absl::Status {
          int phase = 0;
          auto meet = [&] {
            return state_->meetings.Meet(rank_, {.host = false, .call = call, .phase = phase++},
                                         {purpose, input.raw(), ""});
          };
          absl::StatusOr<Arrivals> arrivals = meet();
          if (!arrivals.ok()) return arrivals.status();
          return body(
              *arrivals, [&] { return meet().status(); }, *device);
        });
    if (stream.kind() != DeviceKind::kCpu) stream.WaitFor(ended);
  }

  const std::shared_ptr<State> state_;
  const int rank_;
  int64_t host_calls_ = 0;
  std::atomic<int64_t> stream_calls_ = 0;
  std::atomic<int64_t> exchanged_bytes_ = 0;
  std::once_flag copies_made_;
  std::optional<Stream> copies_;  // of messages to this rank; on a GPU, once there are any
};

InProcessNetwork::InProcessNetwork(int ranks, InProcessOptions options) {
  LONGSPAN_CHECK(ranks >= 1, "a network has at least one rank");
  state_ = std::make_shared<State>(ranks, options);
}

InProcessNetwork::~InProcessNetwork() = default;

std::unique_ptr<Transport> InProcessNetwork::Connect(int rank) {
  LONGSPAN_CHECK(rank >= 0 && rank < state_->ranks, "no such rank in this network");
  LONGSPAN_CHECK(!state_->connected[rank].exchange(true), "a rank connects once");
  return std::make_unique<Endpoint>(state_, rank);
}

void InProcessNetwork::Abort(const std::string& reason) { state_->Abort(reason); }

std::string InProcessNetwork::Describe(int rank) const {
  const std::string messages = state_->messages.Describe(rank);
  const std::string meetings = state_->meetings.Describe(rank);
  if (messages.empty() && meetings.empty()) return "waits for no other rank";
  return absl::StrCat(messages, messages.empty() || meetings.empty() ? "" : "; ", meetings);
}

}  // namespace longspan
