#include "parallel/transport/staged_transport.h"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/device/memory.h"
#include "parallel/transport/exchange_trace.h"

namespace longspan {
namespace {

// Pinned memory that is kept for the next message: to pin and release it in a step would be slow.
class PinnedBlocks {
 public:
  explicit PinnedBlocks(MemoryTable& table) : table_(table) {}
  ~PinnedBlocks() {
    std::unique_lock lock(mutex_);
    returned_.wait(lock, [&] { return out_ == 0; });
  }

  // Of at least `bytes`. Whoever drops the last reference gives it back, on any thread.
  absl::StatusOr<std::shared_ptr<const Buffer>> Take(int64_t bytes) {
    std::unique_ptr<Buffer> block;
    {
      std::lock_guard lock(mutex_);
      auto best = free_.end();
      for (auto each = free_.begin(); each != free_.end(); ++each) {
        if ((*each)->bytes() < bytes) continue;
        if (best == free_.end() || (*each)->bytes() < (*best)->bytes()) best = each;
      }
      if (best != free_.end()) {
        block = std::move(*best);
        free_.erase(best);
        ++out_;
      }
    }
    if (block == nullptr) {
      absl::StatusOr<Buffer> made =
          Buffer::Allocate(table_, bytes, "transport", Placement::kPinnedHost);
      if (!made.ok()) return made.status();
      block = std::make_unique<Buffer>(*std::move(made));
      std::lock_guard lock(mutex_);
      ++out_;
    }
    return std::shared_ptr<const Buffer>(block.release(), [this](const Buffer* returned) {
      std::lock_guard lock(mutex_);
      free_.emplace_back(const_cast<Buffer*>(returned));
      --out_;
      returned_.notify_all();  // under the lock: whoever is woken may destroy this
    });
  }

 private:
  MemoryTable& table_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Buffer>> free_;
  int64_t out_ = 0;
};

// What goes on beside one stream of the GPU, and fails where that fails.
struct Lane {
  Lane(Device& cpu, Device& device)
      : posts(cpu.CreateStream("staged")),
        out(device.CreateStream("staged out")),
        in(device.CreateStream("staged in")) {}

  std::mutex mutex;  // of the order in which calls use the three
  Stream posts;      // of the CPU: what is handed to the host transport, in order
  Stream out, in;    // copies; last, so that they end first
};

// A message, or a tensor of a collective, and where it lies in pinned memory.
struct Staged {
  Message message;
  char* pinned = nullptr;

  char* device() const { return static_cast<char*>(message.tensor.raw()); }
  int64_t bytes() const { return message.tensor.bytes(); }
};

class StagedTransport : public Transport {
 public:
  StagedTransport(Transport& host, Device& device, const StagedOptions& options)
      : host_(host),
        device_(device),
        piece_bytes_(std::max<int64_t>(options.piece_bytes / 64 * 64, 64)),
        blocks_(device.memory()),
        cpu_(Device::OpenCpu(std::max(1, options.threads))) {}

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int ranks_on_node() const override { return host_.ranks_on_node(); }
  int rank_on_node() const override { return host_.rank_on_node(); }
  std::string name() const override { return absl::StrCat(host_.name(), " through pinned memory"); }

  Event Exchange(std::vector<Message> sends, std::vector<Message> receives,
                 Stream& stream) override {
    if (stream.kind() == DeviceKind::kCpu) {
      return host_.Exchange(std::move(sends), std::move(receives), stream);
    }
    const ExchangeTrace trace(sends, receives, stream);
    std::vector<Staged> out, in;
    int64_t total = 0, longest = 1;
    for (auto [messages, staged] : {std::pair(&sends, &out), std::pair(&receives, &in)}) {
      for (const Message& message : *messages) {
        LONGSPAN_CHECK(message.tensor.contiguous(), "exchange: messages are contiguous");
        if (message.tensor.empty()) continue;
        staged->push_back({message, nullptr});
        longest = std::max(longest, message.tensor.bytes());
        total += Padded(message.tensor.bytes());
      }
    }
    const absl::StatusOr<std::shared_ptr<const Buffer>> block = blocks_.Take(total);
    if (!block.ok()) return Failed(block.status());
    char* at = static_cast<char*>((*block)->data());
    for (std::vector<Staged>* staged : {&out, &in}) {
      for (Staged& each : *staged) {
        each.pinned = at;
        at += Padded(each.bytes());
      }
    }
    Lane& lane = LaneOf(stream);
    const std::lock_guard lock(lane.mutex);
    lane.out.WaitFor(stream.Record());
    // Every message is cut alike on both sides, and the pieces between two ranks leave and are
    // expected in one order: piece by piece, within that message by message.
    for (int64_t begin = 0; begin < longest; begin += piece_bytes_) {
      for (const Staged& each : out) {
        const int64_t bytes = PieceOf(each, begin);
        if (bytes > 0) lane.out.CopyBytes(each.device() + begin, each.pinned + begin, bytes);
      }
      lane.posts.WaitFor(lane.out.Record());
      lane.in.WaitFor(host_.Exchange(Pieces(out, begin), Pieces(in, begin), lane.posts));
      for (const Staged& each : in) {
        const int64_t bytes = PieceOf(each, begin);
        if (bytes > 0) lane.in.CopyBytes(each.pinned + begin, each.device() + begin, bytes);
      }
    }
    const Event done = lane.in.Record();
    Hold(*block, lane);
    trace.Posted(done);
    return done;
  }

  void AllReduceSum(TensorView tensor, Stream& stream) override {
    if (stream.kind() == DeviceKind::kCpu) return host_.AllReduceSum(tensor, stream);
    Collective(tensor.bytes(), stream, [&](Lane& lane, char* pinned) {
      const TensorView on_host(pinned, tensor.dtype(), {tensor.elements()});
      lane.out.CopyBytes(tensor.raw(), pinned, tensor.bytes());
      lane.posts.WaitFor(lane.out.Record());
      host_.AllReduceSum(on_host, lane.posts);
      lane.in.WaitFor(lane.posts.Record());
      lane.in.CopyBytes(pinned, tensor.raw(), tensor.bytes());
    });
  }

  // Both collectives with parts go piece by piece: a piece of every part lies together in pinned
  // memory, and is copied while the one before it travels.
  void ReduceScatterSum(TensorView input, TensorView output, Stream& stream) override {
    if (stream.kind() == DeviceKind::kCpu) return host_.ReduceScatterSum(input, output, stream);
    const int64_t element = SizeOf(input.dtype()), sum_element = SizeOf(output.dtype());
    const bool in_place = input.dtype() == output.dtype();
    const int64_t sums = Padded(input.bytes());  // where they lie, if not in place
    Collective(
        in_place ? input.bytes() : sums + output.bytes(), stream, [&](Lane& lane, char* pinned) {
          ForPieces(output.elements(), element, [&](int64_t begin, int64_t count) {
            const TensorView all(pinned + begin * size() * element, input.dtype(),
                                 {size() * count});
            const TensorView sum =
                in_place ? PartOf(all, count)
                         : TensorView(pinned + sums + begin * sum_element, output.dtype(), {count});
            for (int part = 0; part < size(); ++part) {
              const int64_t from = part * output.elements() + begin;
              lane.out.CopyBytes(At(input, from), At(all, part * count), count * element);
            }
            lane.posts.WaitFor(lane.out.Record());
            host_.ReduceScatterSum(all, sum, lane.posts);
            lane.in.WaitFor(lane.posts.Record());
            lane.in.CopyBytes(sum.raw(), At(output, begin), sum.bytes());
          });
        });
  }

  void AllGather(TensorView input, TensorView output, Stream& stream) override {
    if (stream.kind() == DeviceKind::kCpu) return host_.AllGather(input, output, stream);
    const int64_t element = SizeOf(input.dtype());
    Collective(output.bytes(), stream, [&](Lane& lane, char* pinned) {
      ForPieces(input.elements(), element, [&](int64_t begin, int64_t count) {
        const TensorView all(pinned + begin * size() * element, input.dtype(), {size() * count});
        const TensorView own = PartOf(all, count);
        lane.out.CopyBytes(At(input, begin), own.raw(), own.bytes());
        lane.posts.WaitFor(lane.out.Record());
        host_.AllGather(own, all, lane.posts);
        lane.in.WaitFor(lane.posts.Record());
        for (int part = 0; part < size(); ++part) {
          const int64_t to = part * input.elements() + begin;
          lane.in.CopyBytes(At(all, part * count), At(output, to), count * element);
        }
      });
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
  int64_t exchanged_bytes() const override { return host_.exchanged_bytes(); }

 private:
  static int64_t Padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

  int64_t PieceOf(const Staged& staged, int64_t begin) const {
    return std::clamp<int64_t>(staged.bytes() - begin, 0, piece_bytes_);
  }
  std::vector<Message> Pieces(const std::vector<Staged>& staged, int64_t begin) const {
    std::vector<Message> pieces;
    for (const Staged& each : staged) {
      const int64_t bytes = PieceOf(each, begin);
      if (bytes == 0) continue;
      pieces.push_back({each.message.peer, TensorView(each.pinned + begin, DType::kU8, {bytes})});
    }
    return pieces;
  }

  // This rank's part of a tensor of size() parts.
  TensorView PartOf(const TensorView& whole, int64_t elements) const {
    return whole.Slice(0, rank() * elements, (rank() + 1) * elements);
  }
  static char* At(const TensorView& tensor, int64_t index) {
    return static_cast<char*>(tensor.raw()) + index * SizeOf(tensor.dtype());
  }
  // Calls body(begin, count) for pieces of a part of `elements`: size() of each make up a message.
  // One with nothing in it for parts that are empty, because all ranks meet.
  template <typename Body>
  void ForPieces(int64_t elements, int64_t element_bytes, const Body& body) const {
    const int64_t most = std::max<int64_t>(piece_bytes_ / (size() * element_bytes) / 16 * 16, 16);
    int64_t begin = 0;
    do {
      body(begin, std::min(most, elements - begin));
      begin += most;
    } while (begin < elements);
  }

  static Event Failed(absl::Status status) {
    EventPromise promise;
    const Event event = promise.event();
    promise.Complete(std::move(status));
    return event;
  }

  Lane& LaneOf(Stream& stream) {
    return *static_cast<Lane*>(
        stream.KeptFor(this, [&] { return std::make_shared<Lane>(*cpu_, device_); }));
  }

  // Keeps the memory until the lane has passed what it has been given.
  static void Hold(std::shared_ptr<const Buffer> block, Lane& lane) {
    lane.in.RunOnHost("staged", [held = std::move(block)] { return absl::OkStatus(); });
  }

  // Queues `body` on the stream's lane, behind and before what is on the stream.
  void Collective(int64_t bytes, Stream& stream,
                  const std::function<void(Lane& lane, char* pinned)>& body) {
    const absl::StatusOr<std::shared_ptr<const Buffer>> block = blocks_.Take(bytes);
    if (!block.ok()) return stream.Fail(block.status());
    Lane& lane = LaneOf(stream);
    const std::lock_guard lock(lane.mutex);
    lane.out.WaitFor(stream.Record());
    body(lane, static_cast<char*>((*block)->data()));
    const Event done = lane.in.Record();
    Hold(*block, lane);
    stream.WaitFor(done);
  }

  Transport& host_;
  Device& device_;
  const int64_t piece_bytes_;
  PinnedBlocks blocks_;
  const std::unique_ptr<Device> cpu_;
};

}  // namespace

std::unique_ptr<Transport> MakeStagedTransport(Transport& host, Device& device,
                                               const StagedOptions& options) {
  return std::make_unique<StagedTransport>(host, device, options);
}

}  // namespace longspan
