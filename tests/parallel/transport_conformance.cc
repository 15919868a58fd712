#include "transport_conformance.h"

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/device/memory.h"
#include "parallel/transport/connect_peers.h"

namespace longspan {
namespace {

#define RETURN_IF_ERROR(expression) \
  if (absl::Status status_ = (expression); !status_.ok()) return status_

#define EXPECT_THAT_OR_RETURN(condition, ...)                                                   \
  if (!(condition))                                                                             \
  return absl::InternalError(absl::StrCat("rank ", transport.rank(), ", line ", __LINE__, ": ", \
                                          #condition, "; ", ##__VA_ARGS__))

// Values in memory of a device. What cannot be allocated or copied ends the test program.
template <typename T>
class OnDevice {
 public:
  OnDevice(Device& device, const std::vector<T>& values)
      : device_(&device), count_(static_cast<int64_t>(values.size())) {
    buffer_ = Buffer::Allocate(device.memory(), bytes(), "test", Placement::kDevice).value();
    LONGSPAN_CHECK(device.CopyNow(values.data(), buffer_.data(), bytes()).ok(), "copy");
  }
  TensorView View() const { return buffer_.Tensor(DTypeOf<T>(), {count_}); }
  // Once no work uses them.
  std::vector<T> Values() const {
    std::vector<T> values(count_);
    LONGSPAN_CHECK(device_->CopyNow(buffer_.data(), values.data(), bytes()).ok(), "copy");
    return values;
  }

 private:
  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }

  Device* device_;
  int64_t count_;
  Buffer buffer_;
};

// Element `i` of what rank `rank` has in round `round`, below 1000 * (rank + 1): hardly two alike,
// and sums of them round.
double Value(int rank, int round, int64_t i) {
  uint64_t bits = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u +
                  static_cast<uint64_t>(rank * 1000 + round) * 0xbf58476d1ce4e5b9u;
  bits ^= bits >> 29;
  return static_cast<double>(bits % 999983) * 1e-3 * (rank + 1);
}

template <typename T>
std::vector<T> Values(int rank, int round, int64_t count) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<T>(Value(rank, round, i));
  return values;
}

template <typename T>
std::vector<T> RankOrderSum(int ranks, int round, int64_t count) {
  std::vector<T> sum = Values<T>(0, round, count);
  for (int rank = 1; rank < ranks; ++rank) {
    const std::vector<T> other = Values<T>(rank, round, count);
    for (int64_t i = 0; i < count; ++i) sum[i] += other[i];
  }
  return sum;
}

template <typename T>
bool Agree(const T* got, const T* expected, int64_t count, bool bits) {
  if (count == 0 || (bits && std::memcmp(got, expected, count * sizeof(T)) == 0)) return true;
  if (bits) return false;
  for (int64_t i = 0; i < count; ++i) {
    // Sums of a few values of a few thousand.
    if (!(std::abs(got[i] - expected[i]) < 0.01)) return false;
  }
  return true;
}

absl::Status CheckHostCalls(Transport& transport) {
  const int rank = transport.rank(), size = transport.size();
  EXPECT_THAT_OR_RETURN(rank >= 0 && rank < size);
  EXPECT_THAT_OR_RETURN(transport.ranks_on_node() >= 1 && transport.ranks_on_node() <= size);
  EXPECT_THAT_OR_RETURN(transport.rank_on_node() < transport.ranks_on_node());
  for (size_t unit : {0, 1, 50000}) {
    absl::StatusOr<std::vector<std::string>> all =
        transport.AllGatherBytes(std::string(unit * rank, static_cast<char>('a' + rank)));
    RETURN_IF_ERROR(all.status());
    EXPECT_THAT_OR_RETURN(static_cast<int>(all->size()) == size);
    for (int other = 0; other < size; ++other) {
      EXPECT_THAT_OR_RETURN((*all)[other] ==
                            std::string(unit * other, static_cast<char>('a' + other)));
    }
  }
  for (int root = 0; root < size; ++root) {
    const std::string sent(70000, static_cast<char>('A' + root));
    absl::StatusOr<std::string> got = transport.BroadcastBytes(rank == root ? sent : "mine", root);
    RETURN_IF_ERROR(got.status());
    EXPECT_THAT_OR_RETURN(*got == sent, "broadcast from rank ", root);
    got = transport.BroadcastBytes("", root);
    RETURN_IF_ERROR(got.status());
    EXPECT_THAT_OR_RETURN(got->empty());
  }
  return transport.Barrier();
}

// Message m of a round from one rank to another. Counts and sizes are drawn alike on all ranks.
struct RandomRound {
  std::vector<std::vector<std::vector<int64_t>>> sizes;  // by source, destination, message
};

RandomRound DrawRound(int ranks, std::mt19937_64& random) {
  RandomRound round;
  round.sizes.resize(ranks, std::vector<std::vector<int64_t>>(ranks));
  for (auto& row : round.sizes) {
    for (auto& messages : row) {
      messages.resize(random() % 4);
      for (int64_t& size : messages) {
        const int magnitude = static_cast<int>(random() % 17);
        size = magnitude == 0 ? 0 : static_cast<int64_t>(random() % (1 << magnitude));
      }
    }
  }
  return round;
}

double Tag(int source, int destination, size_t message) {
  return source * 31.0 + destination * 7.0 + static_cast<double>(message) * 3.0;
}

absl::Status CheckRandomExchanges(Transport& transport, Device& device,
                                  const ConformanceOptions& options) {
  struct Received {
    int source;
    size_t message;
    int round;
    OnDevice<float> values;
  };
  const int rank = transport.rank(), size = transport.size();
  std::mt19937_64 random(options.seed);
  std::vector<OnDevice<float>> sent;
  std::vector<Received> received;
  std::vector<std::pair<std::vector<Message>, std::vector<Message>>> rounds(options.rounds);
  Stream stream = device.CreateStream("exchanges");
  for (int number = 0; number < options.rounds; ++number) {
    const RandomRound round = DrawRound(size, random);
    for (int peer = 0; peer < size; ++peer) {
      const std::vector<int64_t>& to = round.sizes[rank][peer];
      for (size_t m = 0; m < to.size(); ++m) {
        sent.emplace_back(device,
                          Values<float>(static_cast<int>(Tag(rank, peer, m)), number, to[m]));
        rounds[number].first.push_back({peer, sent.back().View()});
      }
      const std::vector<int64_t>& from = round.sizes[peer][rank];
      for (size_t m = 0; m < from.size(); ++m) {
        received.push_back({peer, m, number, {device, std::vector<float>(from[m], std::nanf(""))}});
        rounds[number].second.push_back({peer, received.back().values.View()});
      }
    }
  }
  // All at once: many exchanges under way, in both directions between the same ranks.
  const int64_t before = transport.exchanged_bytes();
  int64_t bytes = 0;
  std::vector<Event> events;
  for (auto& [sends, receives] : rounds) {
    for (const Message& message : sends) bytes += message.tensor.bytes();
    events.push_back(transport.Exchange(std::move(sends), std::move(receives), stream));
  }
  for (const Event& event : events) RETURN_IF_ERROR(event.WaitFor(absl::Seconds(60)));
  EXPECT_THAT_OR_RETURN(transport.exchanged_bytes() - before == bytes);
  for (const Received& each : received) {
    const std::vector<float> got = each.values.Values();
    const std::vector<float> expected =
        Values<float>(static_cast<int>(Tag(each.source, rank, each.message)), each.round,
                      static_cast<int64_t>(got.size()));
    EXPECT_THAT_OR_RETURN(got == expected, "message ", each.message, " from rank ", each.source,
                          " in round ", each.round);
  }
  return stream.Synchronize();
}

// An exchange sends what earlier work on its stream wrote, and later work that waited sees what it
// received.
absl::Status CheckOrderOnStream(Transport& transport, Device& device) {
  const int rank = transport.rank(), size = transport.size();
  const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
  constexpr int64_t kCount = 100000;
  const OnDevice<float> held(device, std::vector<float>(kCount, static_cast<float>(rank)));
  const OnDevice<float> arriving(device, std::vector<float>(kCount, -1));
  Stream stream = device.CreateStream("order");
  for (int hop = 0; hop < 5; ++hop) {
    stream.WaitFor(stream.RunOnHost("write", [&]() -> absl::Status {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      const std::vector<float> changed(kCount, held.Values()[0] + 100);
      return device.CopyNow(changed.data(), held.View().raw(), held.View().bytes());
    }));
    stream.WaitFor(
        transport.Exchange({{next, held.View()}}, {{previous, arriving.View()}}, stream));
    stream.CopyBytes(arriving.View().raw(), held.View().raw(), held.View().bytes());
  }
  RETURN_IF_ERROR(stream.Synchronize());
  const float expected = static_cast<float>((rank + 5 * size - 5) % size + 500);
  const std::vector<float> got = held.Values();
  EXPECT_THAT_OR_RETURN(got == std::vector<float>(kCount, expected), "got ", got[0], ", not ",
                        expected);
  // An exchange does not hold its stream up.
  bool went_on = false;
  Event event = transport.Exchange({{next, held.View()}}, {{previous, arriving.View()}}, stream);
  const Event ran = stream.RunOnHost("go on", [&] {
    went_on = true;
    return absl::OkStatus();
  });
  RETURN_IF_ERROR(ran.WaitFor(absl::Seconds(60)));
  EXPECT_THAT_OR_RETURN(went_on);
  return event.WaitFor(absl::Seconds(60));
}

template <typename T>
absl::Status CheckAllReduce(Transport& transport, Stream& stream, int64_t count, int round,
                            bool bits) {
  const OnDevice<T> sum(stream.device(), Values<T>(transport.rank(), round, count));
  transport.AllReduceSum(sum.View(), stream);
  RETURN_IF_ERROR(stream.Synchronize());
  const std::vector<T> values = sum.Values();
  const std::vector<T> expected = RankOrderSum<T>(transport.size(), round, count);
  EXPECT_THAT_OR_RETURN(Agree(values.data(), expected.data(), count, bits), "all-reduce of ",
                        count);
  return absl::OkStatus();
}

absl::Status CheckPartitioned(Transport& transport, Stream& stream, int64_t part, bool in_place,
                              int round, bool bits) {
  const int rank = transport.rank(), size = transport.size();
  const std::vector<float> expected = RankOrderSum<float>(size, round, part * size);
  const OnDevice<float> input(stream.device(), Values<float>(rank, round, part * size));
  const OnDevice<float> apart(stream.device(), std::vector<float>(part, std::nanf("")));
  const TensorView own = input.View().Slice(0, rank * part, (rank + 1) * part);
  transport.ReduceScatterSum(input.View(), in_place ? own : apart.View(), stream);
  RETURN_IF_ERROR(stream.Synchronize());
  const std::vector<float> sum = in_place ? input.Values() : apart.Values();
  EXPECT_THAT_OR_RETURN(
      Agree(sum.data() + (in_place ? rank * part : 0), expected.data() + rank * part, part, bits),
      "reduce-scatter, parts of ", part, in_place ? ", in place" : "");

  const OnDevice<float> all(stream.device(), std::vector<float>(part * size, std::nanf("")));
  transport.AllGather(in_place ? own : apart.View(), in_place ? input.View() : all.View(), stream);
  RETURN_IF_ERROR(stream.Synchronize());
  const std::vector<float> gathered = in_place ? input.Values() : all.Values();
  EXPECT_THAT_OR_RETURN(Agree(gathered.data(), expected.data(), part * size, bits),
                        "all-gather, parts of ", part, in_place ? ", in place" : "");
  return absl::OkStatus();
}

uint16_t ToBf16(double value) {
  const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
float FromBf16(uint16_t value) { return std::bit_cast<float>(uint32_t{value} << 16); }

// What rank `rank` has at `i`, of either sign.
double SignedValue(int rank, int round, int64_t i) {
  return (i + rank) % 3 == 0 ? -Value(rank, round, i) : Value(rank, round, i);
}

// Gradients that travel as bf16: near the sum of what they were rounded from, in FP64, and where
// the transport adds up in f32, the bits of rank order.
absl::Status CheckBf16Reduction(Transport& transport, Stream& stream, int64_t part, int round) {
  const int rank = transport.rank(), size = transport.size();
  std::vector<uint16_t> rounded(part * size);
  for (int64_t i = 0; i < part * size; ++i) rounded[i] = ToBf16(SignedValue(rank, round, i));
  const OnDevice<uint16_t> held(stream.device(), rounded);
  const OnDevice<float> apart(stream.device(), std::vector<float>(part, std::nanf("")));
  const TensorView input(held.View().raw(), DType::kBF16, {part * size});
  const bool widened = transport.Bf16SumType(stream.kind()) == DType::kF32;
  transport.ReduceScatterSum(
      input, widened ? apart.View() : input.Slice(0, rank * part, (rank + 1) * part), stream);
  RETURN_IF_ERROR(stream.Synchronize());
  std::vector<float> got = apart.Values();
  if (!widened) {
    const std::vector<uint16_t> sums = held.Values();
    for (int64_t i = 0; i < part; ++i) got[i] = FromBf16(sums[rank * part + i]);
  }
  for (int64_t i = 0; i < part; ++i) {
    double exact = 0, magnitude = 0;
    float in_rank_order = 0;
    for (int each = 0; each < size; ++each) {
      const double value = SignedValue(each, round, rank * part + i);
      exact += value;
      magnitude += std::abs(value);
      const float sent = FromBf16(ToBf16(value));
      in_rank_order = each == 0 ? sent : in_rank_order + sent;
    }
    EXPECT_THAT_OR_RETURN(!widened || got[i] == in_rank_order, "bf16 sum ", i, " of ", part, ": ",
                          got[i], ", in rank order ", in_rank_order);
    // Half a unit in the last of 8 bits for what each rank sent and, where sums are bf16, for every
    // addition; f32's own rounding is far below.
    const double bound = std::ldexp(widened ? 1.001 : 1.02 * size, -8) * magnitude;
    EXPECT_THAT_OR_RETURN(std::abs(got[i] - exact) <= bound, "bf16 sum ", i, " of ", part, ": ",
                          got[i], ", not ", exact);
  }
  return absl::OkStatus();
}

absl::Status CheckCollectives(Transport& transport, Device& device, bool bits) {
  Stream stream = device.CreateStream("collectives");
  int round = 0;
  for (int64_t count : {0, 1, 2, 7, 33, 1000, 200003}) {
    RETURN_IF_ERROR(CheckAllReduce<float>(transport, stream, count, round++, bits));
    RETURN_IF_ERROR(CheckAllReduce<double>(transport, stream, count, round++, bits));
  }
  for (int64_t part : {0, 1, 3, 64, 5000, 70001}) {
    for (bool in_place : {false, true}) {
      RETURN_IF_ERROR(CheckPartitioned(transport, stream, part, in_place, round++, bits));
    }
    RETURN_IF_ERROR(CheckBf16Reduction(transport, stream, part, round++));
  }
  return absl::OkStatus();
}

// Collectives are matched by the order of the calls, whatever streams they are on and whatever
// delays those.
absl::Status CheckTwoStreams(Transport& transport, Device& device) {
  const float rank = static_cast<float>(transport.rank());
  const int size = transport.size();
  const OnDevice<float> a(device, std::vector<float>(3000, rank));
  const OnDevice<float> b(device, std::vector<float>(10, rank + 100));
  const OnDevice<float> c(device, std::vector<float>(3000, rank + 200));
  Stream first = device.CreateStream("first"), second = device.CreateStream("second");
  first.WaitFor(first.RunOnHost("late", [rank] {
    std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(5 * rank)));
    return absl::OkStatus();
  }));
  transport.AllReduceSum(a.View(), first);
  transport.AllReduceSum(b.View(), second);
  transport.AllReduceSum(c.View(), first);
  RETURN_IF_ERROR(first.Synchronize());
  RETURN_IF_ERROR(second.Synchronize());
  const float sum = static_cast<float>(size * (size - 1) / 2);
  const float ranks = static_cast<float>(size);
  EXPECT_THAT_OR_RETURN(a.Values() == std::vector<float>(3000, sum));
  EXPECT_THAT_OR_RETURN(b.Values() == std::vector<float>(10, sum + 100.0f * ranks));
  EXPECT_THAT_OR_RETURN(c.Values() == std::vector<float>(3000, sum + 200.0f * ranks));
  return absl::OkStatus();
}

// Ranks that disagree about a message's size hear of it.
absl::Status CheckSizeMismatch(Transport& transport, Device& device) {
  if (transport.size() < 2 || transport.rank() > 1) return absl::OkStatus();
  const OnDevice<float> values(device, std::vector<float>(8));
  Stream stream = device.CreateStream("mismatch");
  if (transport.rank() == 0) {
    // The sender may or may not learn of it.
    (void)transport.Exchange({{1, values.View().Slice(0, 0, 7)}}, {}, stream)
        .WaitFor(absl::Seconds(60));
    return absl::OkStatus();
  }
  const absl::Status status =
      transport.Exchange({}, {{0, values.View()}}, stream).WaitFor(absl::Seconds(60));
  EXPECT_THAT_OR_RETURN(absl::IsInvalidArgument(status), status.ToString());
  EXPECT_THAT_OR_RETURN(std::string(status.message()).find("28 bytes") != std::string::npos,
                        status.ToString());
  return absl::OkStatus();
}

// Tagged messages from a thread in the background while exchanges and collectives go on: asked for
// in another order than they were sent, some never, and of very different sizes.
absl::Status CheckTagged(Transport& transport, Device& device) {
  const int rank = transport.rank(), size = transport.size();
  const auto text = [](int from, int to, int number) {
    const size_t length = number % 3 == 0 ? 0 : number % 3 == 1 ? 17 : 200000;
    return std::string(length, static_cast<char>('a' + (from * 7 + to * 3 + number) % 26));
  };
  const auto tag = [](int number) { return absl::StrCat("step ", number); };
  constexpr int kNumbers = 9;
  absl::Status background;
  std::thread thread([&] {
    const auto run = [&]() -> absl::Status {
      for (int number = 0; number < kNumbers; ++number) {
        for (int peer = 0; peer < size; ++peer) {
          RETURN_IF_ERROR(transport.SendTagged(peer, tag(number), text(rank, peer, number)));
          RETURN_IF_ERROR(transport.SendTagged(peer, tag(number), "second"));
          RETURN_IF_ERROR(transport.SendTagged(peer, "nobody asks", "for this"));
        }
      }
      for (int number = kNumbers - 1; number >= 0; --number) {
        for (int peer = size - 1; peer >= 0; --peer) {
          for (const std::string& expected : {text(peer, rank, number), std::string("second")}) {
            absl::StatusOr<std::string> got =
                transport.ReceiveTagged(peer, tag(number), absl::Seconds(60));
            RETURN_IF_ERROR(got.status());
            EXPECT_THAT_OR_RETURN(*got == expected, number, " from ", peer);
          }
        }
      }
      return absl::OkStatus();
    };
    background = run();
  });
  const OnDevice<double> sum(device, std::vector<double>(1000, 1));
  const OnDevice<float> mine(device, std::vector<float>(500, static_cast<float>(rank)));
  const OnDevice<float> theirs(device, std::vector<float>(500, -1));
  Stream stream = device.CreateStream("tagged");
  const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
  for (int round = 0; round < 20; ++round) {
    if (size > 1) {
      stream.WaitFor(
          transport.Exchange({{next, mine.View()}}, {{previous, theirs.View()}}, stream));
    }
    transport.AllReduceSum(sum.View(), stream);
  }
  const absl::Status foreground = stream.Synchronize();
  thread.join();
  RETURN_IF_ERROR(foreground);
  RETURN_IF_ERROR(background);
  // Dropped, and never sent: both are not there. What was sent before "last" has come when it has.
  RETURN_IF_ERROR(transport.SendTagged(previous, "last", ""));
  RETURN_IF_ERROR(transport.ReceiveTagged(next, "last", absl::Seconds(60)).status());
  transport.DropTagged("nobody");
  for (const char* missing : {"nobody asks", "step 1000"}) {
    absl::StatusOr<std::string> got =
        transport.ReceiveTagged(next, missing, absl::Milliseconds(20));
    EXPECT_THAT_OR_RETURN(absl::IsDeadlineExceeded(got.status()), missing, ": ",
                          got.status().ToString());
  }
  return absl::OkStatus();
}

// Up to five ranks are all neighbours of each other.
absl::Status CheckConnect(Transport& transport, Device& device) {
  const int64_t before = transport.exchanged_bytes();
  RETURN_IF_ERROR(ConnectPeers(transport, device));
  const int64_t sent = transport.exchanged_bytes() - before;
  const int64_t wanted = kConnectBytes * (transport.size() - 1);
  EXPECT_THAT_OR_RETURN(transport.size() > 5 || sent == wanted, sent, " bytes, not ", wanted);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTransport(Transport& transport, Device& device,
                            const ConformanceOptions& options) {
  RETURN_IF_ERROR(CheckHostCalls(transport));
  RETURN_IF_ERROR(CheckConnect(transport, device));
  RETURN_IF_ERROR(CheckRandomExchanges(transport, device, options));
  RETURN_IF_ERROR(CheckOrderOnStream(transport, device));
  RETURN_IF_ERROR(CheckCollectives(transport, device, options.rank_order));
  RETURN_IF_ERROR(CheckTwoStreams(transport, device));
  if (options.sizes_checked) RETURN_IF_ERROR(CheckSizeMismatch(transport, device));
  RETURN_IF_ERROR(CheckTagged(transport, device));
  return transport.Barrier();
}

}  // namespace longspan
