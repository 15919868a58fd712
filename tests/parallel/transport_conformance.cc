#include "transport_conformance.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

#define RETURN_IF_ERROR(expression) \
  if (absl::Status status_ = (expression); !status_.ok()) return status_

#define EXPECT_THAT_OR_RETURN(condition, ...)                                                   \
  if (!(condition))                                                                             \
  return absl::InternalError(absl::StrCat("rank ", transport.rank(), ", line ", __LINE__, ": ", \
                                          #condition, "; ", ##__VA_ARGS__))

TensorView View(std::vector<float>& values) {
  return TensorView::Of(values.data(), {static_cast<int64_t>(values.size())});
}
TensorView View(std::vector<double>& values) {
  return TensorView::Of(values.data(), {static_cast<int64_t>(values.size())});
}

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
    std::vector<float> values;
  };
  const int rank = transport.rank(), size = transport.size();
  Stream stream = device.CreateStream("exchanges");
  std::mt19937_64 random(options.seed);
  std::vector<std::vector<float>> sent;
  std::vector<Received> received;
  std::vector<std::pair<std::vector<Message>, std::vector<Message>>> rounds(options.rounds);
  for (int number = 0; number < options.rounds; ++number) {
    const RandomRound round = DrawRound(size, random);
    for (int peer = 0; peer < size; ++peer) {
      const std::vector<int64_t>& to = round.sizes[rank][peer];
      for (size_t m = 0; m < to.size(); ++m) {
        sent.push_back(Values<float>(static_cast<int>(Tag(rank, peer, m)), number, to[m]));
        rounds[number].first.push_back({peer, View(sent.back())});
      }
      const std::vector<int64_t>& from = round.sizes[peer][rank];
      for (size_t m = 0; m < from.size(); ++m) {
        received.push_back({peer, m, number, std::vector<float>(from[m], std::nanf(""))});
        rounds[number].second.push_back({peer, View(received.back().values)});
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
    const std::vector<float> expected =
        Values<float>(static_cast<int>(Tag(each.source, rank, each.message)), each.round,
                      static_cast<int64_t>(each.values.size()));
    EXPECT_THAT_OR_RETURN(each.values == expected, "message ", each.message, " from rank ",
                          each.source, " in round ", each.round);
  }
  return stream.Synchronize();
}

// An exchange sends what earlier work on its stream wrote, and later work that waited sees what it
// received.
absl::Status CheckOrderOnStream(Transport& transport, Device& device) {
  const int rank = transport.rank(), size = transport.size();
  const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
  Stream stream = device.CreateStream("order");
  constexpr int64_t kCount = 100000;
  std::vector<float> held(kCount, -1), arriving(kCount, -1);
  for (int hop = 0; hop < 5; ++hop) {
    stream.Launch("write", [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      held.assign(kCount, held[0] < 0 ? static_cast<float>(rank) : held[0] + 100);
    });
    stream.WaitFor(transport.Exchange({{next, View(held)}}, {{previous, View(arriving)}}, stream));
    stream.Launch("take", [&] { held = arriving; });
  }
  RETURN_IF_ERROR(stream.Synchronize());
  const float expected = static_cast<float>((rank + 5 * size - 5) % size + 400);
  EXPECT_THAT_OR_RETURN(held == std::vector<float>(kCount, expected), "got ", held[0], ", not ",
                        expected);
  // An exchange does not hold its stream up.
  bool went_on = false;
  Event event = transport.Exchange({{next, View(held)}}, {{previous, View(arriving)}}, stream);
  stream.Launch("go on", [&] { went_on = true; });
  RETURN_IF_ERROR(stream.Synchronize());
  EXPECT_THAT_OR_RETURN(went_on);
  return event.WaitFor(absl::Seconds(60));
}

template <typename T>
absl::Status CheckAllReduce(Transport& transport, Stream& stream, int64_t count, int round,
                            bool bits) {
  std::vector<T> values = Values<T>(transport.rank(), round, count);
  transport.AllReduceSum(View(values), stream);
  RETURN_IF_ERROR(stream.Synchronize());
  const std::vector<T> expected = RankOrderSum<T>(transport.size(), round, count);
  EXPECT_THAT_OR_RETURN(Agree(values.data(), expected.data(), count, bits), "all-reduce of ",
                        count);
  return absl::OkStatus();
}

absl::Status CheckPartitioned(Transport& transport, Stream& stream, int64_t part, bool in_place,
                              int round, bool bits) {
  const int rank = transport.rank(), size = transport.size();
  std::vector<float> input = Values<float>(rank, round, part * size);
  const std::vector<float> expected = RankOrderSum<float>(size, round, part * size);
  std::vector<float> apart(part, std::nanf(""));
  TensorView own = View(input).Slice(0, rank * part, (rank + 1) * part);
  TensorView sum = in_place ? own : View(apart);
  transport.ReduceScatterSum(View(input), sum, stream);
  RETURN_IF_ERROR(stream.Synchronize());
  EXPECT_THAT_OR_RETURN(Agree(sum.data<float>(), expected.data() + rank * part, part, bits),
                        "reduce-scatter, parts of ", part, in_place ? ", in place" : "");

  std::vector<float> all(part * size, std::nanf(""));
  TensorView target = in_place ? View(input) : View(all);
  transport.AllGather(sum, target, stream);
  RETURN_IF_ERROR(stream.Synchronize());
  EXPECT_THAT_OR_RETURN(Agree(target.data<float>(), expected.data(), part * size, bits),
                        "all-gather, parts of ", part, in_place ? ", in place" : "");
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
  }
  return absl::OkStatus();
}

// Collectives are matched by the order of the calls, whatever streams they are on and whatever
// delays those.
absl::Status CheckTwoStreams(Transport& transport, Device& device) {
  Stream first = device.CreateStream("first"), second = device.CreateStream("second");
  const float rank = static_cast<float>(transport.rank());
  const int size = transport.size();
  std::vector<float> a(3000, rank), b(10, rank + 100), c(3000, rank + 200);
  first.Launch("late", [rank] {
    std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(5 * rank)));
  });
  transport.AllReduceSum(View(a), first);
  transport.AllReduceSum(View(b), second);
  transport.AllReduceSum(View(c), first);
  RETURN_IF_ERROR(first.Synchronize());
  RETURN_IF_ERROR(second.Synchronize());
  const float sum = static_cast<float>(size * (size - 1) / 2);
  EXPECT_THAT_OR_RETURN(a == std::vector<float>(3000, sum));
  EXPECT_THAT_OR_RETURN(b == std::vector<float>(10, sum + 100.0f * static_cast<float>(size)));
  EXPECT_THAT_OR_RETURN(c == std::vector<float>(3000, sum + 200.0f * static_cast<float>(size)));
  return absl::OkStatus();
}

// Ranks that disagree about a message's size hear of it.
absl::Status CheckSizeMismatch(Transport& transport, Device& device) {
  if (transport.size() < 2 || transport.rank() > 1) return absl::OkStatus();
  Stream stream = device.CreateStream("mismatch");
  std::vector<float> values(8);
  if (transport.rank() == 0) {
    // The sender may or may not learn of it.
    (void)transport.Exchange({{1, View(values).Slice(0, 0, 7)}}, {}, stream)
        .WaitFor(absl::Seconds(60));
    return absl::OkStatus();
  }
  const absl::Status status =
      transport.Exchange({}, {{0, View(values)}}, stream).WaitFor(absl::Seconds(60));
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
  Stream stream = device.CreateStream("tagged");
  std::vector<double> sum(1000, 1);
  std::vector<float> mine(500, static_cast<float>(rank)), theirs(500, -1);
  const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
  for (int round = 0; round < 20; ++round) {
    if (size > 1) {
      stream.WaitFor(transport.Exchange({{next, View(mine)}}, {{previous, View(theirs)}}, stream));
    }
    transport.AllReduceSum(View(sum), stream);
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

}  // namespace

absl::Status CheckTransport(Transport& transport, Device& device,
                            const ConformanceOptions& options) {
  RETURN_IF_ERROR(CheckHostCalls(transport));
  RETURN_IF_ERROR(CheckRandomExchanges(transport, device, options));
  RETURN_IF_ERROR(CheckOrderOnStream(transport, device));
  RETURN_IF_ERROR(CheckCollectives(transport, device, options.rank_order));
  RETURN_IF_ERROR(CheckTwoStreams(transport, device));
  RETURN_IF_ERROR(CheckSizeMismatch(transport, device));
  RETURN_IF_ERROR(CheckTagged(transport, device));
  return transport.Barrier();
}

}  // namespace longspan
