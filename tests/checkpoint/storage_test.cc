#include "checkpoint/storage.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scratch_directory.h"

namespace longspan {
namespace {

struct AlignedMemory {
  explicit AlignedMemory(int64_t size)
      : bytes(size), data(static_cast<char*>(std::aligned_alloc(kStorageAlignment, size))) {}
  ~AlignedMemory() { std::free(data); }
  AlignedMemory(const AlignedMemory&) = delete;
  AlignedMemory& operator=(const AlignedMemory&) = delete;
  const int64_t bytes;
  char* const data;
};

void FillAtRandom(AlignedMemory& memory) {
  std::mt19937_64 random(7);
  for (int64_t i = 0; i < memory.bytes; ++i) memory.data[i] = static_cast<char>(random());
}

struct Variant {
  const char* name;
  StorageOptions options;
};

class StorageTest : public testing::TestWithParam<Variant> {
 protected:
  // Null, and the test skipped, where the kernel refuses io_uring.
  std::unique_ptr<FileSystem> Open() {
    absl::StatusOr<std::unique_ptr<FileSystem>> storage = OpenStorage(GetParam().options);
    if (absl::IsUnavailable(storage.status())) return nullptr;
    EXPECT_TRUE(storage.ok()) << storage.status();
    return storage.ok() ? *std::move(storage) : nullptr;
  }
};

TEST_P(StorageTest, WritesFromManyPlacesReadBack) {
  ScratchDirectory scratch;
  AlignedMemory memory(int64_t{24} << 20);
  FillAtRandom(memory);
  const std::unique_ptr<FileSystem> storage = Open();
  if (storage == nullptr) GTEST_SKIP() << "io_uring is refused here";
  storage->RegisterMemory(memory.data, int64_t{16} << 20);  // not all of it
  const int64_t bytes = memory.bytes - 1234;                // the end is not aligned
  {
    auto file = storage->Create(scratch / "a");
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Reserve(bytes).ok());
    constexpr int64_t kPiece = int64_t{1} << 20;
    std::atomic<int64_t> left = (bytes + kPiece - 1) / kPiece;
    std::promise<void> all;
    // Last piece first: any order will do.
    for (int64_t at = (bytes - 1) / kPiece * kPiece; at >= 0; at -= kPiece) {
      (*file)->StartWrite(at, memory.data + at, std::min(kPiece, bytes - at),
                          [&](const absl::Status& status) {
                            EXPECT_TRUE(status.ok()) << status;
                            if (--left == 0) all.set_value();
                          });
    }
    all.get_future().wait();
    ASSERT_TRUE((*file)->Sync().ok());
    EXPECT_EQ(*(*file)->Size(), bytes);
  }
  EXPECT_TRUE(*storage->ReadAll(scratch / "a") ==
              std::string(memory.data, static_cast<size_t>(bytes)));
  std::printf("%s\n", storage->description().c_str());
  storage->WithdrawMemory(memory.data);

  // Reads of any alignment, up to the last byte and not beyond.
  AlignedMemory back(int64_t{8} << 20);
  auto file = storage->OpenForRead(scratch / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  struct Range {
    int64_t begin, length, into;
  };
  for (const Range range :
       {Range{0, 8 << 20, 0}, Range{4096, 8192, 0}, Range{4096, 9000, 4096}, Range{5, 4096, 0},
        Range{8192, 4096, 3}, Range{12288, 100, 0}, Range{bytes - 100, 100, 0},
        Range{bytes / 4096 * 4096 - 8192, bytes % 4096 + 8192, 0}}) {
    ASSERT_TRUE((*file)->ReadAt(range.begin, back.data + range.into, range.length).ok());
    EXPECT_EQ(std::memcmp(back.data + range.into, memory.data + range.begin, range.length), 0)
        << range.begin << " " << range.length;
  }
  const int64_t last = bytes / 4096 * 4096;
  const absl::Status beyond = (*file)->ReadAt(last - 4096, back.data, 8192);
  EXPECT_EQ(beyond.code(), absl::StatusCode::kDataLoss) << beyond;
  EXPECT_NE(beyond.message().find(absl::StrCat("ends at byte ", bytes)), std::string::npos)
      << beyond;
}

TEST_P(StorageTest, UnalignedMemoryAndOffsetsAreWritten) {
  ScratchDirectory scratch;
  const std::unique_ptr<FileSystem> storage = Open();
  if (storage == nullptr) GTEST_SKIP() << "io_uring is refused here";
  AlignedMemory memory(int64_t{64} << 10);
  FillAtRandom(memory);
  auto file = storage->Create(scratch / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  for (const auto& [offset, from, bytes] :
       std::vector<std::array<int64_t, 3>>{{0, 1, 8192}, {8192, 3, 11}, {8203, 0, 8192}}) {
    std::promise<absl::Status> done;
    (*file)->StartWrite(offset, memory.data + from, bytes,
                        [&](const absl::Status& status) { done.set_value(status); });
    const absl::Status status = done.get_future().get();
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_TRUE(*storage->ReadAll(scratch / "a") == std::string(memory.data + 1, 8192) +
                                                      std::string(memory.data + 3, 11) +
                                                      std::string(memory.data, 8192));
}

TEST_P(StorageTest, AFailedWriteNamesTheFile) {
  ScratchDirectory scratch;
  const std::unique_ptr<FileSystem> storage = Open();
  if (storage == nullptr) GTEST_SKIP() << "io_uring is refused here";
  AlignedMemory memory(int64_t{1} << 20);
  FillAtRandom(memory);
  auto file = storage->Create(scratch / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  // A limit on file size stands in for a full disk.
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 65536;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  std::promise<absl::Status> done;
  (*file)->StartWrite(0, memory.data, memory.bytes,
                      [&](const absl::Status& status) { done.set_value(status); });
  const absl::Status status = done.get_future().get();
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find(scratch / "a"), absl::string_view::npos) << status;
}

using Engine = StorageOptions::Engine;
INSTANTIATE_TEST_SUITE_P(
    Engines, StorageTest,
    testing::Values(Variant{"Auto", {}}, Variant{"IoUring", {.engine = Engine::kIoUring}},
                    Variant{"IoUringOneAtATime", {.engine = Engine::kIoUring, .depth = 1}},
                    Variant{"Threads", {.engine = Engine::kThreads}},
                    Variant{"ThreadsThroughThePageCache",
                            {.engine = Engine::kThreads, .direct = false}}),
    [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace longspan
