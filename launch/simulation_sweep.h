// RunSimulations: many batches of many cases, on all cores.
#ifndef LONGSPAN_LAUNCH_SIMULATION_SWEEP_H_
#define LONGSPAN_LAUNCH_SIMULATION_SWEEP_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "parallel/cost_model.h"
#include "parallel/simulator.h"

namespace longspan {

struct SimulationCase {
  std::string mix, policy;
  int64_t context = 0;             // tokens; longer sequences are cut into pieces; 0: as drawn
  int64_t tokens = 0;              // of a batch
  int64_t micro_batch_tokens = 0;  // what a rank holds at a time
  int ranks = 1;
  SimulationRequest simulation;  // jitter.seed is that of the first batch
};

struct SimulationResult {
  absl::Status status;  // why there is none; the rest is 0 then
  double step_seconds = 0;
  double tokens_per_second = 0;
  RankTimes shares;  // of a step, mean of ranks; they add up to 1
};

// What CreatePlanner knows, and "pp-balance".
std::vector<std::string> SimulationPolicies();

// InvalidArgument: a mix, policy or cost model that no planner could take; a batch that one of them
// refuses is no such error.
absl::Status CheckCase(const SimulationCase& simulated);

// Means over batches `seed`, `seed` + 1, ... of each case. `progress` (batches done, of all) is
// called by one thread at a time. The same for any number of cores.
std::vector<SimulationResult> RunSimulations(const std::vector<SimulationCase>& cases, int batches,
                                             uint64_t seed,
                                             const std::function<void(size_t, size_t)>& progress);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_SIMULATION_SWEEP_H_
