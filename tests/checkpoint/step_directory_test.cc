#include "checkpoint/step_directory.h"

#include <gtest/gtest.h>

namespace longspan {
namespace {

TEST(StepDirectoryTest, NamesGoBothWays) {
  EXPECT_EQ(StepDirectoryName({200, 3}), "step-00000200.g0003");
  EXPECT_EQ(StepDirectoryName({1234567890, 12345}), "step-1234567890.g12345");
  for (StepName name : {StepName{0, 1}, StepName{200, 3}, StepName{1234567890, 12345}}) {
    const auto parsed = ParseStepDirectoryName(StepDirectoryName(name));
    ASSERT_TRUE(parsed.has_value());
    EXPECT_EQ(parsed->step, name.step);
    EXPECT_EQ(parsed->generation, name.generation);
  }
  EXPECT_EQ(GenerationFileName(3), "generation-0003");
  EXPECT_EQ(ParseGenerationFileName("generation-0003"), 3);
}

TEST(StepDirectoryTest, OtherNamesAreNotOurs) {
  for (const char* name : {"", "step-", "step-00000200", "step-200.g3", "step-00000200.g0003.old",
                           "step-0000020x.g0003", "xstep-00000200.g0003", "step-00000200.g-003",
                           "step-99999999999999999999.g0003"}) {
    EXPECT_FALSE(ParseStepDirectoryName(name).has_value()) << name;
  }
  EXPECT_FALSE(ParseGenerationFileName("generation-").has_value());
  EXPECT_FALSE(ParseGenerationFileName("generation-0003~").has_value());
}

TEST(StepDirectoryTest, EveryNameCountsForTheGeneration) {
  EXPECT_EQ(HighestGeneration({}), 0);
  EXPECT_EQ(HighestGeneration({"generation-0002", "latest", "step-00000001.g0001"}), 2);
  EXPECT_EQ(HighestGeneration({"generation-0002", "step-00000001.g0007"}), 7);
}

TEST(StepDirectoryTest, Paths) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(ParentPath("a/b"), "a");
  EXPECT_EQ(ParentPath("a/b/"), "a");
  EXPECT_EQ(ParentPath("a"), ".");
  EXPECT_EQ(ParentPath("/a"), "/");
}

}  // namespace
}  // namespace longspan
