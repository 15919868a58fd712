#include "parallel/transport/transport.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/time/clock.h"
#include "parallel/transport/in_process_transport.h"
#include "parallel/transport/mpi_transport.h"
#include "parallel/transport/rank_threads.h"
#include "transport_conformance.h"

namespace longspan {
namespace {

std::string Text(const absl::Status& status) { return status.ToString(); }

bool Contains(const absl::Status& status, const std::string& part) {
  return Text(status).find(part) != std::string::npos;
}

RankThreadOptions WithTimeout(double seconds = 60) {
  RankThreadOptions options;
  options.timeout = absl::Seconds(seconds);
  return options;
}

class InProcessConformance : public ::testing::TestWithParam<int> {};

TEST_P(InProcessConformance, Rendezvous) {
  const absl::Status status = RunRanks(
      GetParam(),
      [](Transport& transport, Device& device) { return CheckTransport(transport, device, {}); },
      WithTimeout());
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(InProcessConformance, SmallSendsBuffered) {
  RankThreadOptions options = WithTimeout();
  options.network.eager_bytes = 4096;
  const absl::Status status = RunRanks(
      GetParam(),
      [](Transport& transport, Device& device) {
        return CheckTransport(transport, device, {.seed = 2});
      },
      options);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(InProcessConformance, RandomDelays) {
  for (uint64_t seed : {3, 4}) {
    RankThreadOptions options = WithTimeout();
    options.network.max_delay = absl::Milliseconds(2);
    options.network.seed = seed;
    options.network.eager_bytes = seed == 4 ? 1024 : 0;
    options.threads_per_rank = 2;
    const absl::Status status = RunRanks(
        GetParam(),
        [&](Transport& transport, Device& device) {
          return CheckTransport(transport, device, {.rounds = 60, .seed = seed});
        },
        options);
    EXPECT_TRUE(status.ok()) << status;
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, InProcessConformance, ::testing::Values(1, 2, 3, 4, 5));

// Rank 2 aborts while the others wait in `wait`: all of them return soon, with its reason.
void ExpectAbortEnds(const std::function<absl::Status(Transport&, Device&)>& wait) {
  const absl::Time start = absl::Now();
  std::vector<absl::Status> ends(3), later(3);
  const absl::Status status = RunRanks(
      3,
      [&](Transport& transport, Device& device) -> absl::Status {
        if (transport.rank() == 2) {
          std::this_thread::sleep_for(std::chrono::milliseconds(30));
          transport.Abort("the cat sat on it");
          return absl::OkStatus();
        }
        ends[transport.rank()] = wait(transport, device);
        later[transport.rank()] = transport.Barrier();
        return ends[transport.rank()];
      },
      WithTimeout(30));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(Contains(status, "the cat sat on it")) << status;
  for (int rank : {0, 1}) {
    EXPECT_TRUE(absl::IsUnavailable(ends[rank])) << "rank " << rank << ": " << ends[rank];
    EXPECT_TRUE(absl::IsUnavailable(later[rank])) << "rank " << rank << ": " << later[rank];
  }
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST(InProcessTransport, AbortEndsAnExchange) {
  ExpectAbortEnds([](Transport& transport, Device& device) {
    Stream stream = device.CreateStream("s");
    std::vector<float> values(100);
    stream.WaitFor(transport.Exchange({}, {{2, TensorView::Of(values.data(), {100})}}, stream));
    bool ran = false;
    stream.Launch("skipped", [&] { ran = true; });
    const absl::Status status = stream.Synchronize();
    EXPECT_FALSE(ran);
    return status;
  });
}

TEST(InProcessTransport, AbortEndsACollective) {
  ExpectAbortEnds([](Transport& transport, Device& device) {
    Stream stream = device.CreateStream("s");
    std::vector<float> values(100);
    transport.AllReduceSum(TensorView::Of(values.data(), {100}), stream);
    return stream.Synchronize();
  });
}

TEST(InProcessTransport, AbortEndsHostCalls) {
  ExpectAbortEnds([](Transport& transport, Device&) {
    return transport.rank() == 0 ? transport.Barrier() : transport.AllGatherBytes("x").status();
  });
}

TEST(InProcessTransport, ARankThatLeavesFailsWhoWaitsForIt) {
  std::vector<absl::Status> ends(3);
  const absl::Status status = RunRanks(
      3,
      [&](Transport& transport, Device& device) -> absl::Status {
        std::vector<float> values(10);
        const TensorView view = TensorView::Of(values.data(), {10});
        Stream stream = device.CreateStream("s");
        if (transport.rank() == 2) return absl::OkStatus();
        if (transport.rank() == 0)
          return ends[0] = transport.Exchange({{2, view}}, {}, stream).Wait();
        return ends[1] = transport.Barrier();
      },
      WithTimeout(30));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  for (int rank : {0, 1}) EXPECT_TRUE(absl::IsUnavailable(ends[rank])) << ends[rank];
  EXPECT_TRUE(Contains(ends[0], "rank 2 has left")) << ends[0];
}

TEST(InProcessTransport, WhatARankSentBeforeItLeftArrives) {
  InProcessNetwork network(2, {.eager_bytes = 1000});
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("s");
  std::vector<float> sent = {1, 2, 3}, received(3);
  std::unique_ptr<Transport> receiver = network.Connect(0);
  {
    std::unique_ptr<Transport> sender = network.Connect(1);
    ASSERT_TRUE(sender->Exchange({{0, TensorView::Of(sent.data(), {3})}}, {}, stream).Wait().ok());
  }
  ASSERT_TRUE(
      receiver->Exchange({}, {{1, TensorView::Of(received.data(), {3})}}, stream).Wait().ok());
  EXPECT_EQ(received, sent);
  const absl::Status none =
      receiver->Exchange({}, {{1, TensorView::Of(received.data(), {3})}}, stream).Wait();
  EXPECT_TRUE(absl::IsUnavailable(none)) << none;
}

TEST(InProcessTransport, AnExchangeOnAFailedStreamFails) {
  InProcessNetwork network(1);
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  std::unique_ptr<Transport> transport = network.Connect(0);
  Stream stream = device->CreateStream("s");
  stream.LaunchFallible("fails", [] { return absl::DataLossError("gone"); });
  std::vector<float> values(4);
  const TensorView view = TensorView::Of(values.data(), {4});
  EXPECT_FALSE(transport->Exchange({{0, view}}, {{0, view}}, stream).Wait().ok());
  EXPECT_TRUE(absl::IsDataLoss(stream.Synchronize()));
}

TEST(InProcessTransport, RanksThatDisagreeAboutACollectiveHearOfIt) {
  std::vector<absl::Status> ends(2);
  const absl::Status status = RunRanks(
      2,
      [&](Transport& transport, Device& device) {
        Stream stream = device.CreateStream("s");
        std::vector<float> values(20);
        transport.AllReduceSum(TensorView::Of(values.data(), {10 + transport.rank()}), stream);
        return ends[transport.rank()] = stream.Synchronize();
      },
      WithTimeout(30));
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  for (const absl::Status& end : ends) {
    EXPECT_TRUE(absl::IsInvalidArgument(end)) << end;
    EXPECT_TRUE(Contains(end, "all-reduce of 10 f32") && Contains(end, "all-reduce of 11 f32"))
        << end;
  }
}

TEST(RunRanks, ReturnsTheFirstCause) {
  const absl::Status status = RunRanks(
      4,
      [](Transport& transport, Device&) -> absl::Status {
        if (transport.rank() == 1) return absl::DataLossError("a file is torn");
        return transport.Barrier();
      },
      WithTimeout(30));
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(std::string(status.message()), "rank 1: a file is torn");
}

TEST(RunRanks, ATimeOutTellsWhereEachRankStood) {
  const absl::Status status = RunRanks(
      4,
      [](Transport& transport, Device& device) -> absl::Status {
        Stream stream = device.CreateStream("s");
        std::vector<float> values(6);
        const TensorView view = TensorView::Of(values.data(), {6});
        switch (transport.rank()) {
          case 0:
            return transport.Exchange({}, {{1, view}}, stream).Wait();
          case 1:
            return transport.Exchange({{2, view}}, {}, stream).Wait();
          case 2:
            return transport.Barrier();
          default:
            std::this_thread::sleep_for(std::chrono::milliseconds(600));
            return absl::OkStatus();
        }
      },
      WithTimeout(0.2));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_TRUE(Contains(status, "rank 0: 1 to receive from rank 1 (first: 24 bytes)")) << status;
  EXPECT_TRUE(Contains(status, "rank 1: 1 to be received by rank 2 (first: 24 bytes)")) << status;
  EXPECT_TRUE(Contains(status, "rank 2: in barrier without rank 0 1 3")) << status;
  EXPECT_TRUE(Contains(status, "rank 3: waits for no other rank")) << status;
}

TEST(LaunchedUnderMpi, LooksAtTheEnvironment) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"}) {
    unsetenv(name);
  }
  EXPECT_FALSE(LaunchedUnderMpi());
  setenv("PMIX_RANK", "0", 1);
  EXPECT_TRUE(LaunchedUnderMpi());
  unsetenv("PMIX_RANK");
}

}  // namespace
}  // namespace longspan
