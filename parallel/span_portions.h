// Attention spans in portions of about equal work, to fill the time that messages need.
#ifndef LONGSPAN_PARALLEL_SPAN_PORTIONS_H_
#define LONGSPAN_PARALLEL_SPAN_PORTIONS_H_

#include <vector>

#include "kernels/attention.h"

namespace longspan {

// Cuts causal spans into weights.size() lists, list i with about weights[i] of the (query, key)
// pairs, in the order of `spans`; long spans are cut between query rows. Together the lists compute
// what `spans` do. They depend on the arguments alone.
std::vector<std::vector<AttentionSpan>> SpanPortions(const std::vector<AttentionSpan>& spans,
                                                     const std::vector<double>& weights);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_SPAN_PORTIONS_H_
