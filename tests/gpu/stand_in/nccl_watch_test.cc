// Whatever NCCL waits for in vain ends with a message: a rank that never comes, an error that it
// reports beside its calls, a call that does not return, an abort of the job.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "kernels/device/cuda_device.h"
#include "parallel/transport/nccl_transport.h"
#include "parallel/transport/rank_threads.h"
#include "runtime.h"

namespace longspan {
namespace {

constexpr int kRemoteError = 6;  // ncclRemoteError

// A function of the stand-in for NCCL, which is loaded beside the program.
void Tell(const char* function, int value) {
  void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(library, nullptr);
  auto* const tell = reinterpret_cast<void (*)(int)>(dlsym(library, function));
  ASSERT_NE(tell, nullptr) << function;
  tell(value);
  dlclose(library);
}

RankThreadOptions OnGpus() {
  RankThreadOptions options;
  options.timeout = absl::Seconds(60);
  options.open_device = [](int rank) { return OpenCuda(rank); };
  return options;
}

enum class Kind { kExchange, kAllReduce, kReduceScatter, kAllGather };

void Queue(Kind kind, Transport& transport, const TensorView& values, Stream& stream) {
  const int64_t part = values.elements() / transport.size();
  const int other = 1 - transport.rank();
  const TensorView own = values.Slice(0, transport.rank() * part, (transport.rank() + 1) * part);
  const TensorView theirs = values.Slice(0, other * part, (other + 1) * part);
  switch (kind) {
    case Kind::kExchange:
      return stream.WaitFor(transport.Exchange({{other, own}}, {{other, theirs}}, stream));
    case Kind::kAllReduce:
      return transport.AllReduceSum(values, stream);
    case Kind::kReduceScatter:
      return transport.ReduceScatterSum(values, own, stream);
    case Kind::kAllGather:
      return transport.AllGather(own, values, stream);
  }
}

struct Outcome {
  absl::Status waited;  // of the first operation
  absl::Status later;   // of what comes after it
  absl::Duration time;
};

// Rank 0 queues an operation; rank 1 does `instead`.
Outcome WithoutRankOne(Kind kind, absl::Duration timeout,
                       const std::function<void(Transport& host)>& instead) {
  Outcome outcome;
  (void)RunRanks(
      2,
      [&](Transport& host, Device& device) -> absl::Status {
        const absl::StatusOr<std::unique_ptr<Transport>> nccl =
            OpenNcclTransport(host, device, {.timeout = timeout});
        if (!nccl.ok()) return nccl.status();
        if (host.rank() == 1) {
          instead(host);
          return host.Barrier();
        }
        const absl::StatusOr<Buffer> buffer =
            Buffer::AllocateZeroed(device.memory(), 4000, "test", Placement::kDevice);
        if (!buffer.ok()) return buffer.status();
        const TensorView values = buffer->Tensor(DType::kF32, {1000});
        const absl::Time begin = absl::Now();
        {
          Stream stream = device.CreateStream("waits");
          Queue(kind, **nccl, values, stream);
          outcome.waited = stream.Synchronize();
        }
        outcome.time = absl::Now() - begin;
        Stream stream = device.CreateStream("later");
        Queue(kind, **nccl, values, stream);
        outcome.later = stream.Synchronize();
        return host.Barrier();
      },
      OnGpus());
  return outcome;
}

class NcclWatchTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto version = NcclVersion(); !version.ok()) GTEST_SKIP() << version.status();
  }
  void TearDown() override { EXPECT_EQ(stand_in::Faults(), ""); }

  static void ExpectEnded(const Outcome& outcome, const std::string& text) {
    for (const absl::Status& status : {outcome.waited, outcome.later}) {
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
      EXPECT_NE(std::string(status.message()).find(text), std::string::npos)
          << status << "\nlacks: " << text;
    }
    EXPECT_LT(outcome.time, absl::Seconds(20));
  }
};

TEST_F(NcclWatchTest, ARankThatNeverComesIsAMessage) {
  for (const auto& [kind, text] :
       {std::pair(Kind::kExchange, "an exchange of 4000 bytes to rank 1 from rank 1"),
        std::pair(Kind::kAllReduce, "ncclAllReduce of 4000 bytes with all ranks"),
        std::pair(Kind::kReduceScatter, "ncclReduceScatter of 4000 bytes with all ranks"),
        std::pair(Kind::kAllGather, "ncclAllGather of 4000 bytes with all ranks")}) {
    const Outcome outcome = WithoutRankOne(kind, absl::Milliseconds(300), [](Transport&) {});
    ExpectEnded(outcome, std::string("NCCL: ") + text + " on rank 0 did not end within 300ms");
    EXPECT_GE(outcome.time, absl::Milliseconds(300)) << text;
  }
}

TEST_F(NcclWatchTest, AnErrorBesideTheCallsEndsWhatIsUnderWay) {
  for (const Kind kind : {Kind::kExchange, Kind::kReduceScatter}) {
    const Outcome outcome = WithoutRankOne(kind, absl::Minutes(20), [](Transport&) {
      absl::SleepFor(absl::Milliseconds(200));
      Tell("LongspanStandInNcclError", kRemoteError);
    });
    Tell("LongspanStandInNcclError", 0);
    const std::string what = kind == Kind::kExchange
                                 ? "an exchange of 4000 bytes to rank 1 from rank 1"
                                 : "ncclReduceScatter of 4000 bytes with all ranks";
    ExpectEnded(outcome, "NCCL: beside " + what + " on rank 0: error of the stand-in");
  }
}

TEST_F(NcclWatchTest, AnAbortOfTheJobEndsWhatIsUnderWay) {
  const Outcome outcome = WithoutRankOne(Kind::kAllReduce, absl::Minutes(20), [](Transport& host) {
    absl::SleepFor(absl::Milliseconds(200));
    host.Abort("as asked");
  });
  ExpectEnded(outcome, "as asked");
}

TEST_F(NcclWatchTest, ACallThatDoesNotReturnIsEnded) {
  std::vector<absl::Status> ends(2);
  const absl::Status status = RunRanks(
      2,
      [&](Transport& host, Device& device) -> absl::Status {
        const absl::StatusOr<std::unique_ptr<Transport>> nccl =
            OpenNcclTransport(host, device, {.timeout = absl::Milliseconds(300)});
        if (!nccl.ok()) return nccl.status();
        if (absl::Status met = host.Barrier(); !met.ok()) return met;
        Tell("LongspanStandInNcclHang", 1);
        const absl::StatusOr<Buffer> buffer =
            Buffer::AllocateZeroed(device.memory(), 4000, "test", Placement::kDevice);
        if (!buffer.ok()) return buffer.status();
        Stream stream = device.CreateStream("hangs");
        Queue(Kind::kAllGather, **nccl, buffer->Tensor(DType::kF32, {1000}), stream);
        ends[host.rank()] = stream.Synchronize();
        return host.Barrier();
      },
      OnGpus());
  Tell("LongspanStandInNcclHang", 0);
  EXPECT_TRUE(status.ok()) << status;
  for (const absl::Status& end : ends) {
    EXPECT_TRUE(absl::IsUnavailable(end)) << end;
    EXPECT_NE(std::string(end.message()).find("ncclAllGather of 4000 bytes"), std::string::npos)
        << end;
  }
}

// What counts is how long an operation itself runs: not what its stream does before, nor a wait for
// a slower rank that is shorter than the time-out.
TEST_F(NcclWatchTest, SlowRanksAreWaitedFor) {
  const absl::Status status = RunRanks(
      2,
      [](Transport& host, Device& device) -> absl::Status {
        const absl::StatusOr<std::unique_ptr<Transport>> nccl =
            OpenNcclTransport(host, device, {.timeout = absl::Milliseconds(1500)});
        if (!nccl.ok()) return nccl.status();
        const absl::StatusOr<Buffer> buffer =
            Buffer::AllocateZeroed(device.memory(), 4000, "test", Placement::kDevice);
        if (!buffer.ok()) return buffer.status();
        Stream stream = device.CreateStream("slow");
        stream.WaitFor(stream.RunOnHost("late", [] {
          absl::SleepFor(absl::Seconds(2));
          return absl::OkStatus();
        }));
        Queue(Kind::kAllReduce, **nccl, buffer->Tensor(DType::kF32, {1000}), stream);
        if (absl::Status first = stream.Synchronize(); !first.ok()) return first;
        if (host.rank() == 1) absl::SleepFor(absl::Milliseconds(300));
        Queue(Kind::kExchange, **nccl, buffer->Tensor(DType::kF32, {1000}), stream);
        return stream.Synchronize();
      },
      OnGpus());
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace longspan
