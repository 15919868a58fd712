// SimulateStep: runs a plan's outline as a sequence of events, without computing anything: what the
// cost formula states as a maximum (ring transfer against attention, the slowest member of a group)
// comes out of who waits for whom, and so does what the formula leaves out: uneven ranks, pipeline
// stages, the reduction of gradients.
#ifndef LONGSPAN_PARALLEL_SIMULATOR_H_
#define LONGSPAN_PARALLEL_SIMULATOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/cost_model.h"
#include "parallel/plan_outline.h"

namespace longspan {

// What follows the micro-batches: gradients are reduce-scattered over all ranks, each rank updates
// its shard, parameters are gathered. Bytes and seconds of the whole model on one rank; a stage of
// a pipeline has its share of them. All zero: takes no time.
struct UpdateModel {
  double gradient_bytes = 0;
  double parameter_bytes = 0;
  double bytes_per_second = 0;   // of a rank's link, each direction
  double latency_seconds = 0;    // of one collective over all ranks
  double optimizer_seconds = 0;  // all shards one after another
};

// From counts alone: gradients of `bytes_each` (4: FP32, 2: BF16) and parameters in BF16 over links
// of `bytes_per_second`, 1 ms a collective, an optimizer that reads and writes 30 bytes a parameter
// at 1.5 TB/s. `parameters`: of the whole model on one rank.
UpdateModel AnalyticUpdateModel(double parameters, double bytes_per_second, double bytes_each = 4);

// Durations are multiplied by exp(deviation * z), z normal: by one factor for each rank (each of
// its stages) and another for each micro-batch. The same for the same seed.
struct JitterModel {
  double rank_deviation = 0;
  double micro_batch_deviation = 0;
  uint64_t seed = 1;
};

struct SimulationRequest {
  CostModel cost;  // of the whole model; a stage takes 1/stages of it
  // Above 1 each rank is a pipeline of as many stages, of equal work. They run 1F1B: stage k has at
  // most stages - k micro-batches whose backward pass is due, and goes forward whenever it may. A
  // ring's members meet stage by stage. Messages between stages are not modelled.
  int stages = 1;
  UpdateModel update;
  JitterModel jitter;
};

// Seconds of one rank (mean of its stages); together the step's.
struct RankTimes {
  double busy = 0;
  double group_wait = 0;        // for other members of a ring
  double exposed_transfer = 0;  // for keys and values, where attention does not hide them
  double stage_wait = 0;        // for the neighbouring stages of a pipeline
  double idle = 0;              // nothing more to do, others are not done
  double update = 0;            // from the last micro-batch of all to the end of the step
  double total() const { return busy + group_wait + exposed_transfer + stage_wait + idle + update; }
};

struct StepSimulation {
  double step_seconds = 0;
  double micro_batches_seconds = 0;  // until the last micro-batch of all has ended
  double tokens_per_second = 0;
  std::vector<RankTimes> ranks;
};

// The forward pass takes a third of a micro-batch's cost, the backward pass the rest; each is one
// ring pass whose steps stand for those of all layers. A ring starts when all its members are free,
// as in TimelineOf, whose makespan results without jitter and stages, up to members of unequal
// work. The reduction runs in buckets, the last layers first: where a rank's last micro-batch has
// no ring, a bucket may go as soon as its share of the backward pass is done, else after the
// micro-batch. `outline` is one of `lengths` that a planner made. Deterministic. O(ring members
// squared, over all rings, times stages) time. InvalidArgument: a coefficient, deviation, rate or
// number of stages out of range.
absl::StatusOr<StepSimulation> SimulateStep(const PlanOutline& outline,
                                            const std::vector<int64_t>& lengths,
                                            const SimulationRequest& request);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_SIMULATOR_H_
