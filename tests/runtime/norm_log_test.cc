#include "runtime/metrics/norm_log.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

NormRecord RecordOf(double value) {
  return {value, value + 1, 0.5, 0, value * 1e-3, value + 2, 100, value + 3};
}

TEST(NormLogTest, RowsComeBackWithoutTheWriterEverClosing) {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/norms.h5";
  NormLogContents contents;
  contents.updates.resize(10);
  contents.optimizer = "adamw";
  contents.weight_decay = 0.1;
  contents.schedule = std::string("{\"kind\": \"linear\"}") + std::string(100000, ' ') + "!";
  absl::StatusOr<NormLog> log = NormLog::Create(path, contents);
  ASSERT_TRUE(log.ok()) << log.status().ToString();
  for (const int64_t update : {0, 1, 4})
    ASSERT_TRUE(log->Write(update, RecordOf(7.0 + update)).ok());
  // As after a kill: the writer is still open.
  absl::StatusOr<NormLogContents> read = ReadNormLog(path);
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->updates.size(), 10u);
  EXPECT_EQ(read->recorded(), 5);
  EXPECT_EQ(read->updates[4].adam, 14);
  EXPECT_TRUE(std::isnan(read->updates[3].l1));
  EXPECT_EQ(read->optimizer, "adamw");
  EXPECT_EQ(read->weight_decay, 0.1);
  EXPECT_EQ(read->schedule, contents.schedule);
  EXPECT_EQ(read->Norms(GradientNorm::kL2).at(1), 9);
  EXPECT_EQ(read->norm_of_optimizer(), GradientNorm::kL1);
  // A row is overwritten in place, and one beyond the end is left out.
  const auto bytes = std::filesystem::file_size(path);
  ASSERT_TRUE(log->Write(1, RecordOf(100)).ok());
  ASSERT_TRUE(log->Write(10, RecordOf(100)).ok());
  EXPECT_EQ(std::filesystem::file_size(path), bytes);
  EXPECT_EQ(ReadNormLog(path)->updates[1].l1, 100);
}

TEST(NormLogTest, OtherFilesAreRefused) {
  TemporaryDirectory directory;
  EXPECT_EQ(ReadNormLog(directory.path() + "/none.h5").status().code(),
            absl::StatusCode::kNotFound);
  const std::string path = directory.path() + "/text.h5";
  std::ofstream(path) << "no HDF5 at all";
  EXPECT_EQ(ReadNormLog(path).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(NormLog::Create(directory.path() + "/no/folder.h5", {}).ok());
  EXPECT_TRUE(NormLog().Write(0, NormRecord()).ok()) << "one that is not open writes nowhere";
}

}  // namespace
}  // namespace longspan
