// What any transport must do, with tensors in device memory: ranks in one process that share a GPU,
// and the staged transport over ranks that know host memory alone.
#include <gtest/gtest.h>

#include <memory>
#include <tuple>

#include "../parallel/transport_conformance.h"
#include "absl/time/clock.h"
#include "kernels/device/cuda_device.h"
#include "parallel/transport/nccl_transport.h"
#include "parallel/transport/rank_threads.h"
#include "parallel/transport/staged_transport.h"

namespace longspan {
namespace {

RankThreadOptions OnOneGpu() {
  RankThreadOptions options;
  options.timeout = absl::Seconds(60);
  options.open_device = [](int) { return OpenCuda(0); };
  return options;
}

class GpuTransportTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    const absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
  }
};

TEST_P(GpuTransportTest, InProcessConforms) {
  for (const bool delays : {false, true}) {
    RankThreadOptions options = OnOneGpu();
    if (delays) {
      options.network.max_delay = absl::Milliseconds(2);
      options.network.eager_bytes = 1024;
    }
    const absl::Status status = RunRanks(
        GetParam(),
        [](Transport& transport, Device& device) {
          return CheckTransport(transport, device, {.seed = 5});
        },
        options);
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_P(GpuTransportTest, StagedConforms) {
  for (const int64_t piece_bytes : {int64_t{4} << 20, int64_t{4096}}) {
    const absl::Status status = RunRanks(
        GetParam(),
        [&](Transport& host, Device& device) {
          const std::unique_ptr<Transport> transport =
              MakeStagedTransport(host, device, {.piece_bytes = piece_bytes});
          EXPECT_EQ(transport->Bf16SumType(DeviceKind::kCuda), DType::kF32);
          return CheckTransport(*transport, device, {.seed = 6});
        },
        OnOneGpu());
    EXPECT_TRUE(status.ok()) << status;
  }
}

// A GPU for each rank, where there are as many.
TEST_P(GpuTransportTest, NcclConforms) {
  if (const auto version = NcclVersion(); !version.ok()) GTEST_SKIP() << version.status();
  if (CountGpus() < GetParam()) GTEST_SKIP() << "there are only " << CountGpus() << " GPUs";
  RankThreadOptions options = OnOneGpu();
  options.open_device = [](int rank) { return OpenCuda(rank); };
  const absl::Status status = RunRanks(
      GetParam(),
      [](Transport& host, Device& device) -> absl::Status {
        const absl::StatusOr<std::unique_ptr<Transport>> transport =
            OpenNcclTransport(host, device);
        if (!transport.ok()) return transport.status();
        EXPECT_EQ((*transport)->Bf16SumType(DeviceKind::kCuda), DType::kBF16);
        EXPECT_EQ((*transport)->Bf16SumType(DeviceKind::kCpu), DType::kF32);
        return CheckTransport(**transport, device,
                              {.rank_order = false, .sizes_checked = false, .seed = 7});
      },
      options);
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(Ranks, GpuTransportTest, testing::Values(1, 2, 3));

TEST(NcclTransportTest, RefusesRanksThatShareAGpu) {
  if (const auto device = OpenCuda(0); !device.ok()) GTEST_SKIP() << device.status();
  if (const auto version = NcclVersion(); !version.ok()) GTEST_SKIP() << version.status();
  std::vector<absl::Status> ends(2);
  const absl::Status status = RunRanks(
      2,
      [&](Transport& host, Device& device) {
        ends[host.rank()] = OpenNcclTransport(host, device).status();
        return host.Barrier();
      },
      OnOneGpu());
  EXPECT_TRUE(status.ok()) << status;
  for (const absl::Status& end : ends) {
    EXPECT_TRUE(absl::IsFailedPrecondition(end)) << end;
    EXPECT_NE(std::string(end.message()).find("share the GPU"), std::string::npos) << end;
  }
}

// The first failure ends everything that waits, as on CPUs.
TEST(GpuTransportFailureTest, AnAbortEndsExchangesAndCollectives) {
  if (const auto device = OpenCuda(0); !device.ok()) GTEST_SKIP() << device.status();
  for (const auto& [staged, collective] : {std::tuple(false, false), std::tuple(false, true),
                                           std::tuple(true, false), std::tuple(true, true)}) {
    std::vector<absl::Status> ends(2);
    const absl::Status status = RunRanks(
        2,
        [&, with_stage = staged, sum = collective](Transport& host, Device& device) {
          if (host.rank() == 1) {
            absl::SleepFor(absl::Milliseconds(30));
            host.Abort("as asked");
            return absl::OkStatus();
          }
          std::unique_ptr<Transport> stage;
          if (with_stage) stage = MakeStagedTransport(host, device);
          Transport& transport = with_stage ? *stage : host;
          absl::StatusOr<Buffer> buffer =
              Buffer::AllocateZeroed(device.memory(), 4000, "test", Placement::kDevice);
          if (!buffer.ok()) return buffer.status();
          const TensorView values = buffer->Tensor(DType::kF32, {1000});
          Stream stream = device.CreateStream("waits");
          if (sum) {
            transport.AllReduceSum(values, stream);
          } else {
            stream.WaitFor(transport.Exchange({}, {{1, values}}, stream));
          }
          return ends[0] = stream.Record().Wait();
        },
        OnOneGpu());
    EXPECT_FALSE(status.ok()) << "staged " << staged << ", collective " << collective;
    EXPECT_NE(std::string(ends[0].message()).find("as asked"), std::string::npos) << ends[0];
  }
}

}  // namespace
}  // namespace longspan
