#include "kernels/device/memory.h"

#include <utility>

#include "gtest/gtest.h"

namespace longspan {
namespace {

TEST(BufferTest, CountsByTagAndPeak) {
  MemoryTable table;
  {
    absl::StatusOr<Buffer> a = Buffer::Allocate(table, 1000, "activations");
    absl::StatusOr<Buffer> b = Buffer::AllocateZeroed(table, 64, "tokens");
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_EQ(table.current_bytes(), 1064);
    EXPECT_EQ(static_cast<unsigned char*>(b->data())[63], 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a->data()) % 64, 0u);
    Buffer moved = *std::move(a);
    EXPECT_EQ(table.current_bytes(), 1064) << "a move allocates nothing";
    moved = Buffer();
    EXPECT_EQ(table.current_bytes(), 64) << "assignment frees what was held";
  }
  EXPECT_EQ(table.current_bytes(), 0);
  EXPECT_EQ(table.peak_bytes(), 1064);
  const std::vector<MemoryTable::Row> rows = table.Rows();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].tag, "activations");
  EXPECT_EQ(rows[0].peak_bytes, 1000);
}

// Sanitizers end the program at a request of this size before it can fail.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(BufferTest, SaysWhatThereIsNoMemoryFor) {
  MemoryTable table;
  const absl::StatusOr<Buffer> buffer = Buffer::Allocate(table, int64_t{1} << 60, "activations");
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(buffer.status().message()).find("activations"), std::string::npos);
}
#endif

TEST(BufferDeathTest, TensorMustFit) {
  MemoryTable table;
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(table, 64, "tokens");
  ASSERT_TRUE(buffer.ok());
  EXPECT_DEATH(buffer->Tensor(DType::kF32, {17}), "does not fit");
}

}  // namespace
}  // namespace longspan
