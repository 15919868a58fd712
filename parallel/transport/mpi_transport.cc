#include "parallel/transport/mpi_transport.h"

#include <mpi.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/device/memory.h"
#include "parallel/transport/exchange_trace.h"
#include "parallel/transport/mpi_progress.h"
#include "parallel/transport/mpi_status.h"
#include "parallel/transport/mpi_tagged.h"
#include "parallel/transport/rank_order_sum.h"

namespace longspan {
namespace {

// An all-reduce is a gather and a sum on every rank while all ranks' tensors together are no larger
// than this: one step of latency. Above, every rank sums one part.
constexpr int64_t kGatheredBytes = int64_t{1} << 20;
// What a reduce-scatter has under way with each other rank at a time.
constexpr int64_t kReducePieceBytes = int64_t{1} << 20;
constexpr int kReduceTag = 0;

MPI_Datatype TypeOf(DType dtype) {
  LONGSPAN_CHECK(dtype == DType::kF32 || dtype == DType::kF64, "reductions are of f32 or f64");
  return dtype == DType::kF32 ? MPI_FLOAT : MPI_DOUBLE;
}

// Lets collective calls run in the order in which they were made, also from different streams: MPI
// matches them by order.
class CallOrder {
 public:
  // Held by one queued call; passes the turn on when destroyed, even if its stream had failed and
  // skipped it.
  class Turn {
   public:
    Turn(CallOrder& order, int64_t number) : order_(order), number_(number) {}
    ~Turn() { order_.Pass(number_, taken_); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    // Blocks until it is this call's turn. Unavailable if an earlier call was skipped, for then the
    // others cannot match.
    absl::Status Take() { return order_.Await(number_, taken_); }

   private:
    CallOrder& order_;
    const int64_t number_;
    bool taken_ = false;
  };

  std::shared_ptr<Turn> Next() {
    std::lock_guard lock(mutex_);
    return std::make_shared<Turn>(*this, next_++);
  }

 private:
  absl::Status Await(int64_t number, bool& taken) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return serving_ == number; });
    taken = true;
    if (!skipped_) return absl::OkStatus();
    return absl::UnavailableError(
        "an earlier collective call was skipped because its stream had failed");
  }
  void Pass(int64_t number, bool taken) {
    std::lock_guard lock(mutex_);
    skipped_ |= !taken;
    passed_.insert(number);
    while (passed_.erase(serving_) > 0) ++serving_;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<int64_t> passed_;
  int64_t next_ = 0;
  int64_t serving_ = 0;
  bool skipped_ = false;
};

struct Communicators {
  MPI_Comm exchange = MPI_COMM_NULL;
  MPI_Comm collective = MPI_COMM_NULL;
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm tagged = MPI_COMM_NULL;
  int rank = 0, size = 1;
  int rank_on_node = 0, ranks_on_node = 1;
};

absl::StatusOr<Communicators> DuplicateWorld() {
  int rank_ = 0;
  LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Comm_rank(MPI_COMM_WORLD, &rank_));
  Communicators result;
  result.rank = rank_;
  LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Comm_size(MPI_COMM_WORLD, &result.size));
  for (MPI_Comm* copy : {&result.exchange, &result.collective, &result.host, &result.tagged}) {
    LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Comm_dup(MPI_COMM_WORLD, copy));
    LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Comm_set_errhandler(*copy, MPI_ERRORS_RETURN));
  }
  MPI_Comm node = MPI_COMM_NULL;
  LONGSPAN_MPI_RETURN_IF_ERROR(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node));
  LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Comm_rank(node, &result.rank_on_node));
  LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Comm_size(node, &result.ranks_on_node));
  LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Comm_free(&node));
  return result;
}

class MpiTransport : public Transport {
 public:
  MpiTransport(const Communicators& communicators, const MpiOptions& options)
      : communicators_(communicators),
        rank_(communicators.rank),
        size_(communicators.size),
        piece_bytes_(std::clamp<int64_t>(options.piece_bytes, 8, int64_t{1} << 30)),
        mpi_reduces_(options.reduction == MpiOptions::Reduction::kMpi ||
                     (options.reduction == MpiOptions::Reduction::kAuto &&
                      communicators.ranks_on_node < communicators.size)),
        progress_(std::make_unique<MpiProgress>(communicators.exchange, communicators.rank,
                                                piece_bytes_)),
        tagged_(std::make_unique<MpiTagged>(communicators.tagged, communicators.rank)) {}

  ~MpiTransport() override {
    tagged_.reset();
    progress_.reset();
    for (MPI_Comm copy : {communicators_.exchange, communicators_.collective, communicators_.host,
                          communicators_.tagged}) {
      MPI_Comm_free(&copy);
    }
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int ranks_on_node() const override { return communicators_.ranks_on_node; }
  int rank_on_node() const override { return communicators_.rank_on_node; }
  std::string name() const override { return "mpi"; }
  int64_t exchanged_bytes() const override { return exchanged_bytes_; }

  Event Exchange(std::vector<Message> sends, std::vector<Message> receives,
                 Stream& stream) override {
    CheckStream(stream);
    for (const Message& message : receives) CheckMessage(message);
    for (const Message& message : sends) {
      CheckMessage(message);
      exchanged_bytes_ += message.tensor.bytes();
    }
    auto promise = std::make_shared<EventPromise>();
    const Event event = promise->event();
    const ExchangeTrace trace(sends, receives, stream);
    stream.Launch("exchange",
                  [this, sends = std::move(sends), receives = std::move(receives), promise, trace] {
                    trace.Posted(promise->event());
                    progress_->Post(sends, receives, std::move(*promise));
                  });
    return event;
  }

  void AllReduceSum(TensorView tensor, Stream& stream) override {
    LONGSPAN_CHECK(tensor.contiguous(), "reductions need contiguous tensors");
    LaunchCollective("all-reduce", stream,
                     [this, tensor](Device& device) { return AllReduce(tensor, device); });
  }

  void ReduceScatterSum(TensorView input, TensorView output, Stream& stream) override {
    LONGSPAN_CHECK(input.contiguous() && output.contiguous() && output.dtype() == DType::kF32 &&
                       (input.dtype() == DType::kF32 || input.dtype() == DType::kBF16) &&
                       input.elements() == output.elements() * size_,
                   "reduce-scatter: input is size() contiguous parts like output");
    LaunchCollective("reduce-scatter", stream, [this, input, output](Device& device) {
      std::vector<int64_t> bounds;
      for (int part = 0; part <= size_; ++part) bounds.push_back(part * output.elements());
      // MPI has no bf16 to add up.
      return mpi_reduces_ && input.dtype() == DType::kF32
                 ? ReduceScatterByMpi(input, output)
                 : ReduceScatterInRankOrder(input, bounds, output.raw(), device);
    });
  }

  void AllGather(TensorView input, TensorView output, Stream& stream) override {
    LONGSPAN_CHECK(input.contiguous() && output.contiguous() && input.dtype() == output.dtype() &&
                       output.elements() == input.elements() * size_,
                   "all-gather: output is size() contiguous parts like input");
    LaunchCollective("all-gather", stream, [this, input, output](Device&) {
      char* own = static_cast<char*>(output.raw()) + rank_ * input.bytes();
      if (own != input.raw() && !input.empty()) std::memcpy(own, input.raw(), input.bytes());
      std::vector<int64_t> bounds;
      for (int part = 0; part <= size_; ++part) bounds.push_back(part * input.bytes());
      return GatherParts(communicators_.collective, static_cast<char*>(output.raw()), bounds);
    });
  }

  absl::StatusOr<std::vector<std::string>> AllGatherBytes(std::string_view bytes) override {
    if (absl::Status status = MeetQuietly(communicators_.host); !status.ok()) return status;
    const int64_t own = static_cast<int64_t>(bytes.size());
    std::vector<int64_t> sizes(size_);
    LONGSPAN_MPI_RETURN_IF_ERROR(
        MPI_Allgather(&own, 1, MPI_INT64_T, sizes.data(), 1, MPI_INT64_T, communicators_.host));
    std::vector<int64_t> bounds = {0};
    for (int64_t size : sizes) bounds.push_back(bounds.back() + size);
    std::string all(bounds.back(), '\0');
    std::copy(bytes.begin(), bytes.end(), all.begin() + bounds[rank_]);
    if (absl::Status status = GatherParts(communicators_.host, all.data(), bounds); !status.ok()) {
      return status;
    }
    std::vector<std::string> result;
    for (int rank = 0; rank < size_; ++rank)
      result.push_back(all.substr(bounds[rank], sizes[rank]));
    return result;
  }

  absl::StatusOr<std::string> BroadcastBytes(std::string_view bytes, int root) override {
    LONGSPAN_CHECK(root >= 0 && root < size_, "broadcast: no such root");
    if (absl::Status status = MeetQuietly(communicators_.host); !status.ok()) return status;
    int64_t count = static_cast<int64_t>(bytes.size());
    LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Bcast(&count, 1, MPI_INT64_T, root, communicators_.host));
    std::string result(count, '\0');
    if (rank_ == root) std::copy(bytes.begin(), bytes.end(), result.begin());
    absl::Status status = Broadcast(communicators_.host, result.data(), count, root);
    if (!status.ok()) return status;
    return result;
  }

  absl::Status Barrier() override { return MeetQuietly(communicators_.host); }

  absl::Status SendTagged(int peer, std::string_view tag, std::string_view bytes) override {
    LONGSPAN_CHECK(peer >= 0 && peer < size_, "tagged message: no such peer");
    return tagged_->Send(peer, tag, bytes);
  }
  absl::StatusOr<std::string> ReceiveTagged(int peer, std::string_view tag,
                                            absl::Duration timeout) override {
    LONGSPAN_CHECK(peer >= 0 && peer < size_, "tagged message: no such peer");
    return tagged_->Receive(peer, tag, timeout);
  }
  void DropTagged(std::string_view prefix) override { tagged_->Drop(prefix); }

  void Abort(const std::string&) override {
    MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    std::_Exit(EXIT_FAILURE);  // MPI_Abort is allowed to return
  }

 private:
  void CheckStream(const Stream& stream) const {
    LONGSPAN_CHECK(stream.kind() == DeviceKind::kCpu, "the MPI transport is for CPU streams");
  }
  void CheckMessage(const Message& message) const {
    LONGSPAN_CHECK(message.peer >= 0 && message.peer < size_, "exchange: no such peer");
    LONGSPAN_CHECK(message.tensor.contiguous(), "exchange: messages are contiguous");
  }

  void LaunchCollective(const char* name, Stream& stream,
                        std::function<absl::Status(Device&)> body) {
    CheckStream(stream);
    Device* device = &stream.device();
    stream.LaunchFallible(name, [turn = order_.Next(), device, body = std::move(body)] {
      absl::Status status = turn->Take();
      return status.ok() ? body(*device) : status;
    });
  }

  // Waits, without keeping a core busy, until all ranks are here: MPI's own blocking calls spin.
  absl::Status MeetQuietly(MPI_Comm communicator) {
    MPI_Request request = MPI_REQUEST_NULL;
    LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Ibarrier(communicator, &request));
    return WaitFor(request, "MPI_Ibarrier", rank_);
  }

  absl::Status Broadcast(MPI_Comm communicator, char* data, int64_t bytes, int root) {
    for (int64_t begin = 0; begin < bytes; begin += piece_bytes_) {
      const int count = static_cast<int>(std::min(piece_bytes_, bytes - begin));
      LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Bcast(data + begin, count, MPI_BYTE, root, communicator));
    }
    return absl::OkStatus();
  }

  // Part r of `data` is bytes [bounds[r], bounds[r + 1]) and comes from rank r; this rank's is in
  // place.
  absl::Status GatherParts(MPI_Comm communicator, char* data, const std::vector<int64_t>& bounds) {
    if (absl::Status status = MeetQuietly(communicator); !status.ok()) return status;
    if (bounds.back() > piece_bytes_) {
      for (int root = 0; root < size_; ++root) {
        absl::Status status =
            Broadcast(communicator, data + bounds[root], bounds[root + 1] - bounds[root], root);
        if (!status.ok()) return status;
      }
      return absl::OkStatus();
    }
    std::vector<int> counts, offsets;
    for (int part = 0; part < size_; ++part) {
      offsets.push_back(static_cast<int>(bounds[part]));
      counts.push_back(static_cast<int>(bounds[part + 1] - bounds[part]));
    }
    LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data,
                                                counts.data(), offsets.data(), MPI_BYTE,
                                                communicator));
    return absl::OkStatus();
  }

  absl::Status AllReduce(TensorView tensor, Device& device) {
    TypeOf(tensor.dtype());
    if (tensor.empty() || size_ == 1) return absl::OkStatus();
    if (tensor.bytes() <= std::min(kGatheredBytes, piece_bytes_) / size_) {
      return AllReduceGathered(tensor, device);
    }
    if (mpi_reduces_) return AllReduceByMpi(tensor);
    const int64_t element = SizeOf(tensor.dtype());
    std::vector<int64_t> bounds, byte_bounds;
    for (int part = 0; part <= size_; ++part) {
      bounds.push_back(tensor.elements() / size_ * part +
                       std::min<int64_t>(part, tensor.elements() % size_));
      byte_bounds.push_back(bounds.back() * element);
    }
    char* data = static_cast<char*>(tensor.raw());
    absl::Status status =
        ReduceScatterInRankOrder(tensor, bounds, data + byte_bounds[rank_], device);
    if (!status.ok()) return status;
    return GatherParts(communicators_.collective, data, byte_bounds);
  }

  absl::Status AllReduceGathered(TensorView tensor, Device& device) {
    std::vector<int64_t> bounds;
    std::vector<const void*> inputs;
    std::string all(tensor.bytes() * size_, '\0');
    for (int part = 0; part <= size_; ++part) bounds.push_back(part * tensor.bytes());
    for (int part = 0; part < size_; ++part) inputs.push_back(all.data() + bounds[part]);
    std::memcpy(all.data() + bounds[rank_], tensor.raw(), tensor.bytes());
    absl::Status status = GatherParts(communicators_.collective, all.data(), bounds);
    if (!status.ok()) return status;
    SumInRankOrder(inputs, tensor.dtype(), tensor.elements(), tensor.raw(), device.threads());
    return absl::OkStatus();
  }

  absl::Status AllReduceByMpi(TensorView tensor) {
    if (absl::Status status = MeetQuietly(communicators_.collective); !status.ok()) return status;
    const int64_t element = SizeOf(tensor.dtype());
    char* data = static_cast<char*>(tensor.raw());
    const int64_t piece = piece_bytes_ / element;
    for (int64_t begin = 0; begin < tensor.elements(); begin += piece) {
      const int count = static_cast<int>(std::min(piece, tensor.elements() - begin));
      LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Allreduce(MPI_IN_PLACE, data + begin * element, count,
                                                 TypeOf(tensor.dtype()), MPI_SUM,
                                                 communicators_.collective));
    }
    return absl::OkStatus();
  }

  // Part r of `input` is elements [bounds[r], bounds[r + 1]); the sum of this rank's part goes to
  // `output`, which may lie there, or is f32 apart from an input of bf16. Everybody sends every
  // other rank its part, a piece at a time; the next pieces travel while one is summed.
  absl::Status ReduceScatterInRankOrder(TensorView input, const std::vector<int64_t>& bounds,
                                        void* output, Device& device) {
    const int64_t element = SizeOf(input.dtype());
    const int64_t sum_element = input.dtype() == DType::kBF16 ? SizeOf(DType::kF32) : element;
    const int64_t piece = std::min(kReducePieceBytes, piece_bytes_) / element;
    int64_t longest = 0;
    for (int part = 0; part < size_; ++part) {
      longest = std::max(longest, bounds[part + 1] - bounds[part]);
    }
    const int64_t pieces = (longest + piece - 1) / piece;
    const int64_t slot_bytes = std::min(piece, longest) * element;
    absl::StatusOr<Buffer> received =
        Buffer::Allocate(device.memory(), 2 * size_ * slot_bytes, "transport");
    if (!received.ok()) return received.status();
    char* data = static_cast<char*>(input.raw());
    auto slot = [&](int64_t index, int peer) {
      return static_cast<char*>(received->data()) + (index % 2 * size_ + peer) * slot_bytes;
    };
    // Elements of piece `index` of part `part`.
    auto range = [&](int64_t index, int part) {
      const int64_t begin = std::min(bounds[part] + index * piece, bounds[part + 1]);
      return std::pair(begin, std::min(begin + piece, bounds[part + 1]));
    };
    std::vector<MPI_Request> requests[2];
    auto post = [&](int64_t index) -> absl::Status {
      std::vector<MPI_Request>& posted = requests[index % 2];
      posted.clear();
      // Each rank starts with another peer, so that not all send to rank 0 first.
      for (int distance = 1; distance < size_; ++distance) {
        const int peer = (rank_ + size_ - distance) % size_;
        const auto [begin, end] = range(index, rank_);
        if (begin == end) continue;
        LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Irecv(
            slot(index, peer), static_cast<int>((end - begin) * element), MPI_BYTE, peer,
            kReduceTag, communicators_.collective, &posted.emplace_back(MPI_REQUEST_NULL)));
      }
      for (int distance = 1; distance < size_; ++distance) {
        const int peer = (rank_ + distance) % size_;
        const auto [begin, end] = range(index, peer);
        if (begin == end) continue;
        LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Isend(
            data + begin * element, static_cast<int>((end - begin) * element), MPI_BYTE, peer,
            kReduceTag, communicators_.collective, &posted.emplace_back(MPI_REQUEST_NULL)));
      }
      return absl::OkStatus();
    };
    if (pieces > 0) {
      if (absl::Status status = post(0); !status.ok()) return status;
    }
    for (int64_t index = 0; index < pieces; ++index) {
      if (index + 1 < pieces) {
        if (absl::Status status = post(index + 1); !status.ok()) return status;
      }
      absl::Status status = WaitForAll(requests[index % 2], "reduce-scatter", rank_);
      if (!status.ok()) return status;
      const auto [begin, end] = range(index, rank_);
      std::vector<const void*> inputs;
      for (int peer = 0; peer < size_; ++peer) {
        inputs.push_back(peer == rank_ ? data + begin * element : slot(index, peer));
      }
      SumInRankOrder(inputs, input.dtype(), end - begin,
                     static_cast<char*>(output) + (begin - bounds[rank_]) * sum_element,
                     device.threads());
    }
    return absl::OkStatus();
  }

  absl::Status ReduceScatterByMpi(TensorView input, TensorView output) {
    if (absl::Status status = MeetQuietly(communicators_.collective); !status.ok()) return status;
    const int64_t element = SizeOf(input.dtype());
    const MPI_Datatype type = TypeOf(input.dtype());
    char* data = static_cast<char*>(input.raw());
    if (input.bytes() <= piece_bytes_) {
      // MPI_Reduce_scatter, because _block takes 2.5 times as long in OpenMPI 4.1.4 on four ranks.
      // In place, it leaves the result at the beginning of the input.
      const std::vector<int> counts(size_, static_cast<int>(output.elements()));
      LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Reduce_scatter(MPI_IN_PLACE, data, counts.data(), type,
                                                      MPI_SUM, communicators_.collective));
      if (!output.empty()) std::memmove(output.raw(), data, output.bytes());
      return absl::OkStatus();
    }
    const int64_t piece = piece_bytes_ / element;
    for (int part = 0; part < size_; ++part) {
      for (int64_t begin = 0; begin < output.elements(); begin += piece) {
        const int count = static_cast<int>(std::min(piece, output.elements() - begin));
        char* from = data + (part * output.elements() + begin) * element;
        const bool root = part == rank_;
        LONGSPAN_MPI_RETURN_IF_ERROR(MPI_Reduce(root ? MPI_IN_PLACE : from, root ? from : nullptr,
                                                count, type, MPI_SUM, part,
                                                communicators_.collective));
      }
    }
    char* own = data + rank_ * output.bytes();
    if (own != output.raw()) std::memcpy(output.raw(), own, output.bytes());
    return absl::OkStatus();
  }

  const Communicators communicators_;
  const int rank_;
  const int size_;
  const int64_t piece_bytes_;
  const bool mpi_reduces_;
  std::unique_ptr<MpiProgress> progress_;
  std::unique_ptr<MpiTagged> tagged_;
  CallOrder order_;
  std::atomic<int64_t> exchanged_bytes_ = 0;
};

}  // namespace

bool LaunchedUnderMpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

std::string MpiLibraryVersion() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "unknown";
  const std::string version(text);
  return version.substr(0, version.find('\n'));
}

absl::StatusOr<std::unique_ptr<Transport>> OpenMpiTransport(int* argc, char*** argv,
                                                            const MpiOptions& options) {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised) {
    return absl::FailedPreconditionError(
        "MPI is already initialised in this process: open one MPI transport only");
  }
  int provided = MPI_THREAD_SINGLE;
  absl::Status status =
      MpiStatus(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread", -1);
  if (!status.ok()) return status;
  if (provided != MPI_THREAD_MULTIPLE) {
    MPI_Finalize();
    return absl::FailedPreconditionError(
        "this MPI library does not offer MPI_THREAD_MULTIPLE, which Longspan needs because "
        "messages "
        "travel while it computes; use Debian's OpenMPI, or an MPI built with thread support");
  }
  absl::StatusOr<Communicators> communicators = DuplicateWorld();
  if (!communicators.ok()) return communicators.status();
  return std::make_unique<MpiTransport>(*communicators, options);
}

}  // namespace longspan
