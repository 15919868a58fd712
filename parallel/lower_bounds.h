// The lower bounds of a certificate, in whole numbers, from lengths alone: planners search above
// them.
#ifndef LONGSPAN_PARALLEL_LOWER_BOUNDS_H_
#define LONGSPAN_PARALLEL_LOWER_BOUNDS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel/certificate.h"
#include "parallel/integer_cost.h"

namespace longspan {

struct LowerBounds {
  PlanningTime area = 0, longest = 0, wide = 0;  // as Certify defines them
  PlanningTime greatest() const { return std::max({area, longest, wide}); }
};

// Lengths in any order, at most kMaxBatchTokens together.
LowerBounds LowerBoundsOf(const std::vector<int64_t>& lengths, int ranks,
                          int64_t micro_batch_tokens, const IntegerCostModel& cost);

PlanCertificate CertificateOf(const LowerBounds& bounds, PlanningTime makespan);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_LOWER_BOUNDS_H_
