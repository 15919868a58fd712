#include "runtime/train/failure.h"

#include "gtest/gtest.h"
#include "runtime/train/agreement.h"

namespace longspan {
namespace {

TEST(FailureTest, SaysWhenAndWhatToDo) {
  const std::unique_ptr<Device> device = Device::OpenCpu(1);
  const absl::Status lost = FailureAt("step 7", *device, absl::UnavailableError("no answer"));
  EXPECT_EQ(lost, absl::UnavailableError("step 7: no answer"));
  const absl::Status full = FailureAt("step 7", *device, absl::ResourceExhaustedError("no memory"));
  EXPECT_TRUE(absl::IsResourceExhausted(full));
  EXPECT_EQ(full.message().rfind("step 7: no memory; lower batch.micro_batch_tokens", 0), 0u)
      << full;
}

TEST(FailureTest, LeavesWhatIsNoneAndWhatAllRanksHave) {
  const std::unique_ptr<Device> device = Device::OpenCpu(1);
  EXPECT_TRUE(FailureAt("step 7", *device, absl::OkStatus()).ok());
  const absl::Status agreed = MarkAgreed(absl::InternalError("step 7: loss nan"));
  EXPECT_EQ(FailureAt("step 7", *device, agreed), agreed);
  EXPECT_TRUE(IsAgreed(FailureAt("step 7", *device, agreed)));
}

}  // namespace
}  // namespace longspan
