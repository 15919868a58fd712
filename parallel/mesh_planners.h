// The policies without balance: what static meshes do, and ByteScale's first algorithm.
#ifndef LONGSPAN_PARALLEL_MESH_PLANNERS_H_
#define LONGSPAN_PARALLEL_MESH_PLANNERS_H_

#include <string>

#include "absl/status/statusor.h"
#include "parallel/planner.h"

namespace longspan {

// Policy "static": a fixed mesh of data-parallel replicas. Each replica is a block of `degree`
// neighbouring ranks, degree being the smallest divisor of the rank count whose ranks together hold
// the longest sequence. Sequences are packed in order of arrival up to C * degree tokens, packs go
// to the replicas in turn, and every sequence of a pack is cut over all ranks of its replica. Ranks
// meet at most four others.
class StaticPlanner : public Planner {
 public:
  std::string name() const override { return "static"; }

 protected:
  absl::StatusOr<PlanOutline> Decide(const PlanRequest& request,
                                     const IntegerCostModel& cost) const override;
};

// Policy "naive": hybrid data parallelism without balance (arXiv 2502.21231, Algorithm 1). In order
// of arrival a sequence longer than C takes the next ceil(s / C) ranks of the line (from its begin,
// when too few are left); shorter ones are packed, up to C tokens, on the next rank.
class NaivePlanner : public Planner {
 public:
  std::string name() const override { return "naive"; }

 protected:
  absl::StatusOr<PlanOutline> Decide(const PlanRequest& request,
                                     const IntegerCostModel& cost) const override;
};

// The degree of StaticPlanner's mesh.
int StaticDegree(const PlanRequest& request);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_MESH_PLANNERS_H_
