// TierSaver: a run's saves to one tier (host memory, a disk of the node): when, and what they cost.
#ifndef LONGSPAN_RUNTIME_TRAIN_TIER_SAVER_H_
#define LONGSPAN_RUNTIME_TRAIN_TIER_SAVER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/tiers.h"
#include "kernels/device/stream.h"
#include "runtime/metrics/metrics_file.h"
#include "runtime/metrics/run_log.h"
#include "runtime/train/run_config.h"
#include "runtime/train/run_state.h"
#include "runtime/train/save_clock.h"
#include "runtime/train/save_costs.h"
#include "runtime/train/training_state.h"

namespace longspan {

// For the training thread of one rank. What it was opened with outlives it.
class TierSaver {
 public:
  struct Setting {
    std::string base;  // the configured directory
    TierOptions options;
    SaveInterval interval;
    CheckpointOptions run;
    int64_t generation = 0;
    double mtbf_seconds = 0;             // between the failures that this tier cures
    const StepSeconds* steps = nullptr;  // of the run
  };
  // Collective.
  static absl::StatusOr<std::unique_ptr<TierSaver>> Open(Setting setting,
                                                         const RunConfig::Checkpoint& config,
                                                         const TrainingState& state,
                                                         Transport& transport, Device& device,
                                                         MetricsFile& metrics, RunLog& log);
  ~TierSaver();

  bool DueByStep(int64_t step) const { return clock_.DueByStep(step); }
  bool DueByClock() const { return clock_.DueByClock(); }  // on rank 0
  bool busy() const { return writer_->busy(); }
  // With what ranks agreed on. Takes a snapshot, or not.
  void SaveIfDue(const RunState& run, Stream& stream, bool due, bool busy);
  // Gates of the newest snapshot, by bucket, until an update takes them; may be empty.
  std::vector<Event> TakeGates();
  // A save is under way, or was at the last Report.
  bool under_way() const { return !under_way_.empty(); }
  // An update was done that waited so long at gates; `changed` as in RunCheckpoints::UpdateDone.
  // `step_seconds`: of its step, the wait aside; 0: not known.
  void UpdateDone(double waited_seconds, bool changed, double step_seconds);
  // Saves that have ended are accounted for.
  void Report();
  void Drain();
  // Of the whole run.
  void Summarize();

 private:
  TierSaver(Setting setting, const RunConfig::Checkpoint& config, const TrainingState& state,
            Transport& transport, Device& device, MetricsFile& metrics, RunLog& log);
  void Account(const FinishedSave& finished);
  void CheckSpace();
  bool leader() const { return transport_.rank() == 0; }
  const std::string& name() const { return setting_.options.tier.name; }

  const Setting setting_;
  const RunConfig::Checkpoint& config_;
  const TrainingState& state_;
  Transport& transport_;
  MetricsFile& metrics_;
  RunLog& log_;
  std::unique_ptr<FileSystem> files_;
  std::optional<Stream> copies_;  // on a GPU
  std::unique_ptr<LazyCheckpointWriter> writer_;

  std::vector<Event> gates_;
  int64_t gated_step_ = -1;  // whose gates an update has taken
  int64_t requested_step_ = -1;
  std::map<int64_t, SaveUnderWay> under_way_;  // by step
  bool changed_ = false;                       // since the last snapshot
  int64_t skipped_ = 0, failed_ = 0;
  std::chrono::steady_clock::time_point last_warning_;
  SaveClock clock_;
  SaveCosts costs_;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_TIER_SAVER_H_
