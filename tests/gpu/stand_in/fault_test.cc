// What a kernel that reads an illegal address leaves of a device. Alone in its program: the error
// stays until the end.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "absl/time/time.h"
#include "kernels/device/cuda_device.h"
#include "kernels/device/memory.h"
#include "runtime.h"

namespace longspan {
namespace {

void ExpectFault(const absl::Status& status, const char* call) {
  EXPECT_TRUE(absl::IsInternal(status)) << call << ": " << status;
  EXPECT_NE(status.message().find("an illegal memory access was encountered, in work that was "
                                  "queued before; the GPU is lost to this process"),
            std::string::npos)
      << call << ": " << status;
}

TEST(FaultTest, FailsEveryStreamAndStopsNothing) {
  const std::string file = testing::TempDir() + "longspan-fault";
  ASSERT_EQ(setenv("LONGSPAN_STAND_IN_FAULT", file.c_str(), /*overwrite=*/1), 0);
  std::remove(file.c_str());
  const absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
  ASSERT_TRUE(device.ok()) << device.status();
  EventPromise message;
  const absl::StatusOr<Buffer> buffer =
      Buffer::AllocateZeroed((*device)->memory(), 4096, "test", Placement::kDevice);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  Stream stream = (*device)->CreateStream("test"), other = (*device)->CreateStream("other");
  const auto launch = [&] {
    return stand_in::Enqueue(static_cast<cudaStream_t>(stream.native()), [] {});
  };
  ASSERT_EQ(launch(), cudaSuccess);
  ASSERT_TRUE(stream.Synchronize().ok());

  // One stream waits for a message that does not come.
  other.WaitFor(message.event());
  const Event behind = other.Record();
  std::ofstream(file) << "now";
  ASSERT_EQ(launch(), cudaSuccess) << "it is the kernel that fails, not its launch";
  const Event recorded = stream.Record();
  bool ran = false;
  const Event on_host = stream.RunOnHost("look", [&] {
    ran = true;
    return absl::OkStatus();
  });
  ExpectFault(stream.Synchronize(), "Synchronize");
  ExpectFault(recorded.Wait(), "Record");
  EXPECT_FALSE(on_host.Wait().ok()) << "what did not run is dropped";
  EXPECT_FALSE(ran);
  ASSERT_TRUE(behind.WaitFor(absl::Seconds(20)).message().find("illegal") != std::string::npos);
  std::remove(file.c_str());

  // All that is asked for from now on fails with the same words.
  EXPECT_NE(stream.native(), nullptr);
  stream.CopyBytes(buffer->data(), buffer->data(), 0);
  ExpectFault(stream.Record().Wait(), "a later Record");
  char byte = 0;
  ExpectFault((*device)->CopyNow(buffer->data(), &byte, 1), "CopyNow");
  Stream late = (*device)->CreateStream("late");
  late.WaitFor(message.event());
  late.CopyBytes(buffer->data(), &byte, 1);
  ExpectFault(late.Record().Wait(), "Record on a stream that could not be made");
  ExpectFault(late.Synchronize(), "Synchronize of a stream that could not be made");
  const absl::Status allocated =
      Buffer::Allocate((*device)->memory(), 64, "late", Placement::kDevice).status();
  EXPECT_TRUE(absl::IsResourceExhausted(allocated));
  EXPECT_NE(allocated.message().find("an illegal memory access"), std::string::npos) << allocated;
  ExpectFault(OpenCuda(0).status(), "OpenCuda");
  message.Complete();
}

}  // namespace
}  // namespace longspan
