// PipelinePlanner, policy "pp-balance": ByteScale's balance over pipelines (arXiv 2502.21231,
// section 6.2). For simulations; training has no pipeline stages.
#ifndef LONGSPAN_PARALLEL_PIPELINE_PLANNER_H_
#define LONGSPAN_PARALLEL_PIPELINE_PLANNER_H_

#include <string>

#include "absl/status/statusor.h"
#include "parallel/planner.h"

namespace longspan {

// A rank is a pipeline of `stages` stages; the request's cost model is that of one stage. Any
// `stages` consecutive micro-batches of a pipeline should take similar times, and pipelines should
// end together, the cheaper ones after more micro-batches. So each pipeline is filled with
// neighbours in the order of lengths up to a common end, its fill and drain (stages - 1 times its
// longest micro-batch) counted in, before the next pipeline is opened; the end is raised until all
// fits. Sequences longer than the capacity C take ceil(s / C) pipelines, as in "bytescale"; shorter
// ones are packed with others of about their length.
// The paper describes the aim and leaves this procedure open.
class PipelinePlanner : public Planner {
 public:
  explicit PipelinePlanner(int stages) : stages_(stages) {}  // >= 1
  std::string name() const override { return "pp-balance"; }

 protected:
  absl::StatusOr<PlanOutline> Decide(const PlanRequest& request,
                                     const IntegerCostModel& cost) const override;

 private:
  const int stages_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_PIPELINE_PLANNER_H_
