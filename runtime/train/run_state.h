// RunState: the part of a run's state that is not tensors. Stored as the "run" object of a
// checkpoint's manifest, equal on all ranks and independent of their number.
#ifndef LONGSPAN_RUNTIME_TRAIN_RUN_STATE_H_
#define LONGSPAN_RUNTIME_TRAIN_RUN_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/data/dataset.h"
#include "runtime/model/model_config.h"
#include "runtime/train/cost_refit.h"
#include "runtime/train/run_config.h"

namespace longspan {

struct RunState {
  int64_t step =
      0;  // updates whose turn has come, skipped ones included; the next update's schedule index
  int64_t updates = 0;    // updates applied: Adam's step count
  int64_t tokens = 0;     // targets trained on so far
  double first_loss = 0;  // mean loss of the very first step, for summaries
  DataCursor cursor;      // of the next batch
  ModelConfig model;
  std::string data_fingerprint;
  std::string tokenizer_kind;
  std::vector<ConfigEntry> config;  // effective values when it was saved
  std::string schedule;             // JSON of optim/schedule.h
  std::vector<CostVersion> costs;   // of planner.cost = "refit", those to come included

  std::string ToJson() const;
};

// DataLoss if the object lacks something.
absl::StatusOr<RunState> RunStateFromJson(const std::string& json);

// What changed between a saved configuration and the present one. Changes of fixed keys, or of the
// data's content, are an InvalidArgument that names old and new values; others come back as lines
// to print.
absl::StatusOr<std::vector<std::string>> CompareForResume(const RunState& saved,
                                                          const std::vector<ConfigEntry>& config,
                                                          const std::string& data_fingerprint);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RUN_STATE_H_
