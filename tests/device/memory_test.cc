#include "kernels/device/memory.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/device/mirrored_buffer.h"

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

// Counts what is handed out, by placement; has no pinned memory beyond 1000 bytes.
class CountedMemory : public MemorySource {
 public:
  void* Allocate(int64_t bytes, Placement placement) override {
    if (placement == Placement::kPinnedHost && bytes > 1000) return nullptr;
    ++held_[placement];
    void* const memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    std::memset(memory, 0x5a, static_cast<size_t>(bytes));
    return memory;
  }
  void Free(void* memory, Placement placement) override {
    --held_[placement];
    std::free(memory);
  }
  absl::Status Zero(void* memory, int64_t bytes, Placement) override {
    std::memset(memory, 0, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  std::string WhatIsLeft(Placement placement) override {
    return placement == Placement::kPinnedHost ? "1000 bytes are left" : "";
  }
  int held(Placement placement) { return held_[placement]; }

 private:
  std::map<Placement, int> held_;
};

TEST(BufferTest, ComesFromTheDevicesMemoryAndGoesBackThere) {
  CountedMemory source;
  MemoryTable table(source);
  {
    absl::StatusOr<Buffer> device =
        Buffer::AllocateZeroed(table, 16, "activations", Placement::kDevice);
    absl::StatusOr<Buffer> host = Buffer::Allocate(table, 16, "tokens");
    ASSERT_TRUE(device.ok() && host.ok());
    EXPECT_EQ(source.held(Placement::kDevice), 1);
    EXPECT_EQ(source.held(Placement::kHost), 1);
    EXPECT_EQ(static_cast<char*>(device->data())[15], 0);
    EXPECT_EQ(static_cast<char*>(host->data())[15], 0x5a);
    Buffer moved = *std::move(device);
    *host = std::move(moved);
    EXPECT_EQ(source.held(Placement::kHost), 0);
    EXPECT_EQ(source.held(Placement::kDevice), 1);
    const absl::StatusOr<Buffer> none =
        Buffer::Allocate(table, 1001, "losses", Placement::kPinnedHost);
    EXPECT_EQ(none.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(none.status().message(),
              "no memory for 1001 bytes of losses: 1000 bytes are left; this rank already holds 16 "
              "bytes");
  }
  EXPECT_EQ(source.held(Placement::kDevice), 0);
  EXPECT_EQ(table.current_bytes(), 0);
}

TEST(MirroredBufferTest, IsOneBufferOnTheCpu) {
  const std::unique_ptr<Device> device = Device::OpenCpu(1);
  Stream stream = device->CreateStream("test");
  const absl::StatusOr<MirroredBuffer> buffer = MirroredBuffer::Allocate(*device, 64, "losses");
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->OnDevice(DType::kF32, {4}, 16).raw(),
            buffer->OnHost(DType::kF32, {4}, 16).raw());
  EXPECT_EQ(buffer->OnHost(DType::kF32, {16}).data<float>()[15], 0);
  buffer->ToHost(0, 64, stream);
  EXPECT_TRUE(stream.Synchronize().ok());
  EXPECT_EQ(device->memory().current_bytes(), 64);
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
