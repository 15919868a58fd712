// A small run that tests of training start from: a corpus in a folder of its own, a configuration
// to change, and Train on ranks that are threads.
#ifndef LONGSPAN_TESTS_RUNTIME_TRAIN_FIXTURE_H_
#define LONGSPAN_TESTS_RUNTIME_TRAIN_FIXTURE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"
#include "runtime/trace/run_trace.h"
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

  // The figure `key` of metrics.jsonl by step; of the latest attempt where there are several.
  std::map<int64_t, double> Losses(const std::string& name, const char* key = "loss") const;

  // The hash over all tensors of the newest checkpoint.
  std::string StateHash(const std::string& name) const;

  std::string Folder(const std::string& name) const { return directory_.path() + "/" + name; }

  // What RankThreadOptions say; by default CPUs.
  std::function<absl::StatusOr<std::unique_ptr<Device>>(int rank)> open_device_;
  // What training gets for each rank's transport; by default that itself.
  std::function<std::unique_ptr<Transport>(Transport& transport, Device& device)> wrap_;

  TraceOptions trace_;  // by default none

  TemporaryDirectory directory_;
  const std::string corpus_;
  RunConfig config_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_RUNTIME_TRAIN_FIXTURE_H_
