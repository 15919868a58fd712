// Gates of a lazy snapshot on a GPU: an update waits for the copy of what it changes, whether it
// comes before the copy is queued or after, and the host has no part in that wait.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "../../runtime/temporary_directory.h"
#include "checkpoint/lazy_writer.h"
#include "checkpoint/storage.h"
#include "kernels/device/cuda_device.h"
#include "parallel/transport/rank_threads.h"
#include "runtime.h"

namespace longspan {
namespace {

constexpr int64_t kElements = 4096;

class CheckpointGatesTest : public testing::Test {
 protected:
  // Snapshots memory full of 1, then fills it with 2 behind the gate. `early`: the fill is queued
  // before the copy.
  void Run(Transport& transport, Device& device, bool early) {
    absl::StatusOr<std::unique_ptr<FileSystem>> files = OpenStorage({});
    ASSERT_TRUE(files.ok()) << files.status();
    absl::StatusOr<Buffer> memory = Buffer::AllocateZeroed(
        device.memory(), kElements * SizeOf(DType::kI32), "state", Placement::kDevice);
    absl::StatusOr<Buffer> pinned =
        Buffer::Allocate(device.memory(), memory->bytes(), "state", Placement::kPinnedHost);
    ASSERT_TRUE(memory.ok() && pinned.ok());
    auto* const values = static_cast<int32_t*>(pinned->data());
    std::fill(values, values + kElements, 1);
    ASSERT_TRUE(device.CopyNow(values, memory->data(), memory->bytes()).ok());
    std::fill(values, values + kElements, 2);

    const std::vector<StateRegion> regions = {
        {"/parameters", "t", DType::kI32, {kElements}, 0, kElements, memory->data(), /*gate=*/0}};
    Stream copies = device.CreateStream("checkpoint", StreamPriority::kLow);
    LazyOptions lazy;
    lazy.copies = &copies;
    CheckpointOptions options;
    options.directory = directory_.path() + (early ? "/early" : "/late");
    options.run_id = "gates";
    auto writer =
        LazyCheckpointWriter::Open(**files, options, lazy, regions, device.memory(), transport);
    ASSERT_TRUE(writer.ok()) << writer.status();

    Stream compute = device.CreateStream("compute");
    EventPromise complete, bus;
    copies.WaitFor(bus.event());  // the copy is slow: the one hold by the host
    SnapshotRequest request;
    request.step = 1;
    request.complete = complete.event();
    const int64_t holds_before = stand_in::CountsSoFar().host_holds;
    if (!early) complete.Complete();
    const std::vector<Event> gates = (*writer)->Snapshot(std::move(request));
    ASSERT_EQ(gates.size(), 1u);
    if (!early) absl::SleepFor(absl::Milliseconds(50));  // so that the copy is queued
    compute.WaitFor(gates[0]);
    compute.CopyBytes(values, memory->data(), memory->bytes());
    const Event filled = compute.Record();
    if (early) complete.Complete();
    EXPECT_TRUE(absl::IsDeadlineExceeded(filled.WaitFor(absl::Milliseconds(50))));
    bus.Complete();
    EXPECT_TRUE(filled.WaitFor(absl::Seconds(20)).ok());
    EXPECT_TRUE(gates[0].Wait().ok());
    (*writer)->Drain();
    const std::vector<FinishedSave> finished = (*writer)->TakeFinished();
    ASSERT_EQ(finished.size(), 1u);
    EXPECT_TRUE(finished[0].status.ok()) << finished[0].status;
    EXPECT_EQ(stand_in::CountsSoFar().host_holds - holds_before, 1);

    const auto found = ListCheckpoints(**files, options.directory);
    ASSERT_TRUE(found.ok() && found->size() == 1);
    std::vector<StateRegion> back = regions;
    back[0].data = values;
    const absl::Status restored = RestoreRegions(**files, (*found)[0], back);
    ASSERT_TRUE(restored.ok()) << restored;
    EXPECT_EQ(std::vector<int32_t>(values, values + kElements), std::vector<int32_t>(kElements, 1));
    std::vector<int32_t> now(kElements);
    ASSERT_TRUE(device.CopyNow(memory->data(), now.data(), memory->bytes()).ok());
    EXPECT_EQ(now, std::vector<int32_t>(kElements, 2));
  }

  TemporaryDirectory directory_;
};

TEST_F(CheckpointGatesTest, AreWaitsOfStreams) {
  for (const bool early : {true, false}) {
    SCOPED_TRACE(early);
    RankThreadOptions options;
    options.timeout = absl::Seconds(60);
    options.open_device = [](int) { return OpenCuda(0); };
    const absl::Status status = RunRanks(
        1,
        [&](Transport& transport, Device& device) {
          Run(transport, device, early);
          return absl::OkStatus();
        },
        options);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(stand_in::Faults(), "");
  }
}

}  // namespace
}  // namespace longspan
