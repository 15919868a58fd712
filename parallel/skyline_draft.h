// SkylineDraft: rings and whole sequences placed on the rank line for given widths. The inner loop
// of SkylinePlanner.
#ifndef LONGSPAN_PARALLEL_SKYLINE_DRAFT_H_
#define LONGSPAN_PARALLEL_SKYLINE_DRAFT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "parallel/plan_outline.h"
#include "parallel/skyline.h"
#include "parallel/sorted_batch.h"

namespace longspan {

// A sequence on the rank line.
struct PlacedSequence {
  int64_t place;      // in the sorted batch
  int width;          // 1: whole
  PlanningTime work;  // RingWork at that width
  int64_t length;
};

struct SkylineDraft {
  struct Ring {
    int64_t place;
    int first, width;  // of the rank line
    PlanningTime start;
  };
  struct Wait {  // of some neighbours for a ring
    int first, ranks;
    PlanningTime time;
    int64_t ring;
  };
  struct Whole {
    int64_t place;
    int rank;
    int64_t before_ring;  // index into rings; -1: after all of the rank's rings
    int micro_batch;      // counts those of the rank before that ring
  };
  std::vector<Ring> rings;  // in the order of placement
  std::vector<Wait> waits;
  std::vector<PlanningTime> free_at;  // by rank
  struct Single {                     // whole, placed as rings are
    int64_t place;
    int rank;
  };
  std::vector<Single> singles;
  std::vector<PlanningTime> rings_end;  // by rank
  std::vector<Whole> wholes;            // with those of `singles`, once AddWholes has run
  PlanningTime makespan = 0;            // as the placement counts, without rounding of shares
  PlanningTime busy = 0;                // sum over ranks of when they are done
  PlanningTime waiting = 0;             // sum over ranks of what they wait for rings
};

// Where heads are split, a ring over a border between nodes of `ranks_per_node` (0: there are none)
// takes as long as its best width of head parallelism of which every node has a multiple.
// Places `sequences` in order; none that is whole before a ring. With `limit`, gives up (nullopt)
// when one ends after it; kFullest needs one. Adds to `scanned` how many segments it looked at.
std::optional<SkylineDraft> DraftRings(const IntegerCostModel& cost, int ranks, int ranks_per_node,
                                       const std::vector<PlacedSequence>& sequences,
                                       std::optional<PlanningTime> limit, Skyline::Choice choice,
                                       int64_t& scanned);

// Adds the places `wholes`, longest first: into waits where they fit, else to the rank that is free
// first.
void AddWholes(const SortedBatch& batch, const IntegerCostModel& cost, int64_t capacity,
               const std::vector<int64_t>& wholes, SkylineDraft& draft);

// Rings are numbered by start time; a rank's micro-batches without a ring come last, apart from
// those that fill a wait.
PlanOutline OutlineOf(const SkylineDraft& draft, const SortedBatch& batch, int ranks);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_SKYLINE_DRAFT_H_
