// Building a data set needs memory that does not depend on the corpus: children build corpora ten
// times as large as the address space that they may add to what they start with.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <new>
#include <string>

#include "runtime/data/build.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

constexpr int64_t kMiB = 1 << 20;

// Of this process now.
int64_t AddressSpaceBytes() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * ::sysconf(_SC_PAGESIZE);
}

// Runs the build in a child that may grow by `growth` bytes; returns its report's tokens, or 0
// after printing the error.
int64_t BuildInChild(const BuildOptions& options, int64_t growth) {
  int pipe[2];
  EXPECT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const rlim_t limit = static_cast<rlim_t>(AddressSpaceBytes() + growth);
    const rlimit limits{limit, limit};
    int64_t tokens = 0;
    if (::setrlimit(RLIMIT_AS, &limits) == 0) {
      const auto report = BuildTokenFile(options, nullptr);
      if (report.ok()) {
        tokens = report->tokens;
      } else {
        std::fprintf(stderr, "%s\n", report.status().ToString().c_str());
      }
    }
    const bool written = ::write(pipe[1], &tokens, sizeof(tokens)) == sizeof(tokens);
    ::_exit(written ? 0 : 1);
  }
  ::close(pipe[1]);
  int64_t tokens = 0;
  if (::read(pipe[0], &tokens, sizeof(tokens)) != sizeof(tokens)) tokens = 0;
  ::close(pipe[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status)) << "the child died of signal " << WTERMSIG(status);
  return tokens;
}

// Lines of words that repeat rarely enough to be a text.
void WriteText(const std::string& path, int64_t bytes, const char* before = "",
               const char* after = "\n") {
  std::ofstream file(path, std::ios::binary);
  uint64_t state = 1;
  while (file.tellp() < bytes) {
    std::string line = before;
    for (int i = 0; i < 12; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      line += "word" + std::to_string(state >> 52) + " ";
    }
    file << line << after;
  }
}

bool SanitizersReserveAddressSpace() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#else
  return false;
#endif
}

TEST(BuildMemory, OneHugeDocumentAndManySmallOnes) {
  if (SanitizersReserveAddressSpace()) GTEST_SKIP() << "the limit counts reserved addresses";
  const TemporaryDirectory directory;
  WriteText(directory / "huge.txt", 120 * kMiB);
  WriteText(directory / "many.jsonl", 80 * kMiB, "{\"text\": \"", "\"}\n");
  BuildOptions options;
  options.text.inputs = {directory / "huge.txt", directory / "many.jsonl"};
  options.output = directory / "tokens.h5";
  EXPECT_GT(BuildInChild(options, 20 * kMiB), 150 * kMiB);
}

TEST(BuildMemory, SentencePieceOnOneHugeDocument) {
  if (SanitizersReserveAddressSpace()) GTEST_SKIP() << "the limit counts reserved addresses";
  const TemporaryDirectory directory;
  WriteText(directory / "huge.txt", 60 * kMiB);
  BuildOptions options;
  options.text.inputs = {directory / "huge.txt"};
  options.output = directory / "tokens.h5";
  options.tokenizer = std::string(LONGSPAN_TEST_DATA) + "/prefix_space.model";
  EXPECT_GT(BuildInChild(options, 6 * kMiB), 15 * kMiB);
}

// What the limit is good for: a corpus held in memory meets it.
void HoldCorpusInMemory() {
  const rlim_t limit = static_cast<rlim_t>(AddressSpaceBytes() + 20 * kMiB);
  const rlimit limits{limit, limit};
  ::setrlimit(RLIMIT_AS, &limits);
  try {
    const std::string corpus(200 * kMiB, 'x');
    ::_exit(corpus.empty() ? 1 : 0);
  } catch (const std::bad_alloc&) {
    ::_exit(42);
  }
}

TEST(BuildMemory, TheLimitHolds) {
  if (SanitizersReserveAddressSpace()) GTEST_SKIP() << "the limit counts reserved addresses";
  EXPECT_EXIT(HoldCorpusInMemory(), ::testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace longspan
