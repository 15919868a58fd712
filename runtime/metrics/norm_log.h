// NormLog: norms.h5, what every update records for refined schedules.
//
// One HDF5 file with a data set "updates" of one record an update, contiguous and allocated when
// the file is made; fields are f64: l1, l2 (norms of the mean gradient before clipping),
// clip_factor, non_finite, rate, loss, tokens, adam (sum of g^2 / (sqrt(v) + eps), g before
// clipping, v corrected for bias). NaN: not recorded, or the update was skipped. Attributes of the
// data set: "optimizer" and "weight_decay"; "schedule" is a data set of text, the plan as JSON.
// After it is made the file is closed, and a row is one write at its offset: a killed run leaves a
// file that reads.
#ifndef LONGSPAN_RUNTIME_METRICS_NORM_LOG_H_
#define LONGSPAN_RUNTIME_METRICS_NORM_LOG_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "optim/refine.h"

namespace longspan {

// In the order of the file's fields.
struct NormRecord {
  double l1 = NAN, l2 = NAN;
  double clip_factor = NAN;
  double non_finite = NAN;
  double rate = NAN;
  double loss = NAN;    // mean of the update's targets
  double tokens = NAN;  // targets
  double adam = NAN;
};

struct NormLogContents {
  std::vector<NormRecord> updates;  // of the run's budget; see recorded()
  std::string optimizer;            // "adamw", "sgd"
  double weight_decay = 0;
  std::string schedule;  // JSON of optim/schedule.h

  // Updates up to the last that was recorded: fewer than the budget where a run was stopped.
  int64_t recorded() const;
  // The norms that fit the optimizer, or the kind asked for; of the recorded updates.
  std::vector<double> Norms(GradientNorm norm) const;
  std::vector<double> Rates() const;
  GradientNorm norm_of_optimizer() const {
    return optimizer == "sgd" ? GradientNorm::kL2 : GradientNorm::kL1;
  }
};

// Written by one rank. Move-only, not thread-safe.
class NormLog {
 public:
  NormLog() = default;  // writes nowhere
  NormLog(NormLog&& other) noexcept;
  NormLog& operator=(NormLog&& other) noexcept;
  ~NormLog();

  // Makes `path` anew with contents.updates.size() rows: at the start of a run all NaN, on a resume
  // with the rows up to there. A file that is there is replaced at once or not at all.
  static absl::StatusOr<NormLog> Create(const std::string& path, const NormLogContents& contents);
  // Row `update`, counted from 0.
  absl::Status Write(int64_t update, const NormRecord& record);

 private:
  std::string path_;
  int file_ = -1;
  int64_t offset_ = 0;  // of row 0, bytes
  int64_t rows_ = 0;
};

// NotFound: no such file. DataLoss: not such a file.
absl::StatusOr<NormLogContents> ReadNormLog(const std::string& path);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_METRICS_NORM_LOG_H_
