// A small run that tests of training start from: a corpus in a folder of its own, a configuration
// to change, and Train on ranks that are threads.
#ifndef LONGSPAN_TESTS_RUNTIME_TRAIN_FIXTURE_H_
#define LONGSPAN_TESTS_RUNTIME_TRAIN_FIXTURE_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "runtime/train/run_config.h"
#include "temporary_directory.h"

namespace longspan {

class TrainFixture : public testing::Test {
 protected:
  // Documents of 299 tokens and fewer, 14 of them.
  TrainFixture();

  // Train() as the command calls it; the error that the ranks agreed on, if any. batch.tokens is a
  // key that a resume refuses to change; run.steps and schedule.peak may change.
  absl::Status TrainOn(int ranks, const std::string& name, const std::string& resume = "",
                       int64_t stop_after = 0, const std::atomic<bool>* stop = nullptr);

  std::string Folder(const std::string& name) const { return directory_.path() + "/" + name; }

  TemporaryDirectory directory_;
  const std::string corpus_;
  RunConfig config_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_RUNTIME_TRAIN_FIXTURE_H_
