// The commit order of FORMAT.md, asserted operation by operation.
#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint_scenario.h"

namespace longspan {
namespace {

TEST(SyncOrderTest, OneRank) {
  SimulatedDisk disk;
  RunAttempt(disk, 1, 1, {1, 2, 3});
  const std::string run = kCheckpoints;
  const std::string one = run + "/step-00000001.g0001";
  const std::string two = run + "/step-00000002.g0001";
  const std::string three = run + "/step-00000003.g0001";
  const std::string spare = run + "/spare.g0001";
  const auto save = [&](const std::string& step) {
    const bool reuses = step == three;
    return std::vector<std::string>{
        "mkdir " + step,
        "sync-directory " + run,
        (reuses ? "reuse " : "create ") + step + "/rank-00000.h5",
        reuses ? "reused " + spare + "/rank-00000.h5" : "reserve " + step + "/rank-00000.h5",
        "write " + step + "/rank-00000.h5",
        "sync " + step + "/rank-00000.h5",
        "sync-directory " + step,
        "create " + step + "/manifest.json",
        "write " + step + "/manifest.json",
        "sync " + step + "/manifest.json",
        "sync-directory " + step,
        "create " + step + "/COMMIT.tmp",
        "write " + step + "/COMMIT.tmp",
        "sync " + step + "/COMMIT.tmp",
        "rename " + step + "/COMMIT.tmp " + step + "/COMMIT",
        "sync-directory " + step,
        "create " + run + "/latest.tmp",
        "write " + run + "/latest.tmp",
        "sync " + run + "/latest.tmp",
        "rename " + run + "/latest.tmp " + run + "/latest",
        "sync-directory " + run,
    };
  };
  std::vector<std::string> expected = {
      "mkdir " + run,
      "sync-directory /run",
      "create " + run + "/generation-0001",
      "write " + run + "/generation-0001",
      "sync " + run + "/generation-0001",
      "sync-directory " + run,
  };
  const auto retire = [&](const std::string& step) {
    for (const std::string& line : {"remove " + step + "/COMMIT", "sync-directory " + step})
      expected.push_back(line);
    if (step == two) expected.push_back("remove " + spare);  // the third step took its file
    for (const std::string& line : {"remove " + step + "/manifest.json",
                                    "rename " + step + " " + spare, "sync-directory " + run}) {
      expected.push_back(line);
    }
  };
  for (const std::string& line : save(one)) expected.push_back(line);
  for (const std::string& line : save(two)) expected.push_back(line);
  retire(one);
  for (const std::string& line : save(three)) expected.push_back(line);
  retire(two);
  for (const std::string& line : {"remove " + spare + "/rank-00000.h5", "remove " + spare})
    expected.push_back(line);
  EXPECT_EQ(disk.log(), expected);
}

TEST(SyncOrderTest, EveryRanksFileIsDurableBeforeTheManifest) {
  SimulatedDisk disk;
  RunAttempt(disk, 3, 1, {1});
  const std::string step = std::string(kCheckpoints) + "/step-00000001.g0001";
  const std::vector<std::string> log = disk.log();
  const auto find = [&](const std::string& line, size_t from = 0) {
    return static_cast<size_t>(std::find(log.begin() + from, log.end(), line) - log.begin());
  };
  const size_t manifest = find("create " + step + "/manifest.json");
  ASSERT_LT(manifest, log.size());
  const size_t parent = find("sync-directory " + std::string(kCheckpoints), find("mkdir " + step));
  for (const std::string name : {"/rank-00000.h5", "/rank-00001.h5", "/rank-00002.h5"}) {
    const size_t create = find("create " + step + name);
    const size_t sync = find("sync " + step + name);
    EXPECT_LT(parent, create) << "the step's own name first";
    EXPECT_LT(create, sync);
    EXPECT_LT(find("sync-directory " + step, sync), manifest) << name;
  }
}

}  // namespace
}  // namespace longspan
