// Train: the training loop of one rank. Every rank of a job calls it with the same request.
#ifndef LONGSPAN_RUNTIME_TRAIN_TRAINER_H_
#define LONGSPAN_RUNTIME_TRAIN_TRAINER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"
#include "runtime/trace/run_trace.h"
#include "runtime/train/run_config.h"

namespace longspan {

struct TrainRequest {
  RunConfig config;
  std::vector<ConfigEntry> entries;
  std::string config_toml;  // written to the run's folder
  std::string resume;  // "": a fresh run; "auto": from its newest checkpoint; or a step directory
  int64_t stop_after = 0;  // updates of this call; 0: until run.steps
  TraceOptions trace;
  std::string resume_command;  // shown when the run stops before its end
  // Set by a signal handler: all ranks finish the step, commit and return OK.
  const std::atomic<bool>* stop_requested = nullptr;
  // Called before the transport is aborted, with an error that the other ranks do not have: the
  // last chance to print it.
  std::function<void(int rank, const absl::Status&)> on_fatal;
};

// OK when the run is complete or stopped as asked, with its state committed. Errors that every rank
// has (IsAgreed) leave the transport usable; any other error has aborted it.
absl::Status Train(const TrainRequest& request, Transport& transport, Device& device);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_TRAINER_H_
