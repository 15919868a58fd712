#include "checkpoint/file_system.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "scratch_directory.h"

namespace longspan {
namespace {

TEST(FileSystemTest, WritesAndReadsAnywhere) {
  ScratchDirectory scratch;
  FileSystem& files = PosixFileSystem();
  auto file = files.Create(scratch / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Reserve(10).ok());
  ASSERT_TRUE((*file)->WriteAt(4, "efg", 3).ok());
  ASSERT_TRUE((*file)->WriteAt(0, "abcd", 4).ok());
  ASSERT_TRUE((*file)->Sync().ok());
  EXPECT_EQ(*(*file)->Size(), 10);
  EXPECT_EQ(*files.ReadAll(scratch / "a"), std::string("abcdefg\0\0\0", 10));
  char back[3];
  ASSERT_TRUE((*file)->ReadAt(2, back, 3).ok());
  EXPECT_EQ(std::string(back, 3), "cde");
  const absl::Status beyond = (*file)->ReadAt(8, back, 3);
  EXPECT_TRUE(absl::IsDataLoss(beyond)) << beyond;
  EXPECT_NE(beyond.message().find(scratch / "a"), absl::string_view::npos);
}

TEST(FileSystemTest, KeepsTheKindsOfErrorsApart) {
  ScratchDirectory scratch;
  FileSystem& files = PosixFileSystem();
  ASSERT_TRUE(files.Create(scratch / "a").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(files.Create(scratch / "a").status()));
  EXPECT_TRUE(absl::IsNotFound(files.OpenForRead(scratch / "b").status()));
  EXPECT_TRUE(absl::IsNotFound(files.Create(scratch / "none/b").status()));
  EXPECT_TRUE(absl::IsNotFound(files.Remove(scratch / "b")));
  EXPECT_TRUE(absl::IsNotFound(files.SyncDirectory(scratch / "b")));
  EXPECT_TRUE(absl::IsNotFound(files.List(scratch / "b").status()));
  ASSERT_TRUE(files.CreateDirectory(scratch / "d").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(files.CreateDirectory(scratch / "d")));
  EXPECT_TRUE(absl::IsPermissionDenied(files.Create("/proc/longspan").status()) ||
              absl::IsNotFound(files.Create("/proc/longspan").status()));
  auto file = files.OpenForRead(scratch / "a");
  ASSERT_TRUE(file.ok());
  EXPECT_FALSE((*file)->WriteAt(0, "x", 1).ok()) << "opened for reading";
}

TEST(FileSystemTest, AFileThatCannotGrowFailsWithItsName) {
  ScratchDirectory scratch;
  auto file = PosixFileSystem().Create(scratch / "a");
  ASSERT_TRUE(file.ok());
  // A limit on file size stands in for a full disk: the write is cut short, then refused.
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string data(4000, 'x');
  const absl::Status status = (*file)->WriteAt(0, data.data(), 4000);
  const absl::Status reserved = (*file)->Reserve(4000);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(reserved.ok());
  EXPECT_NE(status.message().find(scratch / "a"), absl::string_view::npos) << status;
  EXPECT_EQ(*(*file)->Size(), 1000) << "the short write went on until the limit";
}

TEST(FileSystemTest, ListsRenamesAndRemoves) {
  ScratchDirectory scratch;
  FileSystem& files = PosixFileSystem();
  ASSERT_TRUE(files.CreateDirectory(scratch / "d").ok());
  ASSERT_TRUE(files.Create(scratch / "d/b").ok());
  ASSERT_TRUE(files.Create(scratch / "d/a").ok());
  EXPECT_EQ(*files.List(scratch / "d"), (std::vector<std::string>{"a", "b"}));
  ASSERT_TRUE(files.Rename(scratch / "d/b", scratch / "d/c").ok());
  EXPECT_FALSE(files.Remove(scratch / "d").ok()) << "not empty";
  ASSERT_TRUE(files.Remove(scratch / "d/a").ok());
  ASSERT_TRUE(files.Remove(scratch / "d/c").ok());
  ASSERT_TRUE(files.SyncDirectory(scratch / "d").ok());
  ASSERT_TRUE(files.Remove(scratch / "d").ok());
  EXPECT_FALSE(files.Exists(scratch / "d"));
  EXPECT_TRUE(files.Exists(scratch.path()));
}

}  // namespace
}  // namespace longspan
