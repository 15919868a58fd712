// Profiles: the cost model of the ranks at hand, measured with the kernels, the transport and the
// model that training would use.
#ifndef LONGSPAN_RUNTIME_COST_COST_PROFILE_H_
#define LONGSPAN_RUNTIME_COST_COST_PROFILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "parallel/cost_model.h"
#include "parallel/ring_attention.h"
#include "parallel/transport/transport.h"
#include "runtime/model/model_config.h"

namespace longspan {

struct ProfileRequest {
  ModelConfig model;
  AttentionOptions attention;
  int64_t micro_batch_tokens = 0;  // most tokens a rank; fewer are measured where time is short
  double seconds = 90;             // about how long to measure; at least three rounds are
  // Called on rank 0 with the share done, in [0, 1].
  std::function<void(double)> progress;
};

struct CostProfile {
  struct Row {
    int64_t length = 0;  // of the one sequence on `members` ranks
    int members = 1;
    double measured_seconds = 0;  // median over rounds, mean over ranks
    double fitted_seconds = 0;
  };
  CostModel cost;  // rank_speeds where ranks differ by more than 2%
  std::vector<Row> rows;
  std::vector<double> measured_speeds;  // by rank, 1 on average
  double median_error = 0, worst_error = 0;
  int rounds = 0;
};

// Collective: 8 lengths on 1, 2, ... ranks (at most 4 widths, the last all ranks), forward plus
// backward of one micro-batch each, in interleaved rounds. The same result on every rank.
// InvalidArgument: fewer than 64 tokens a micro-batch.
absl::StatusOr<CostProfile> ProfileCost(const ProfileRequest& request, Transport& transport,
                                        Device& device);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_COST_COST_PROFILE_H_
