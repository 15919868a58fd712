#include "parallel/mesh_planners.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace longspan {

int StaticDegree(const PlanRequest& request) {
  int64_t longest = 0;
  for (const int64_t length : request.lengths) longest = std::max(longest, length);
  int degree = longest <= request.micro_batch_tokens
                   ? 1
                   : static_cast<int>((longest - 1) / request.micro_batch_tokens + 1);
  while (request.ranks % degree != 0) ++degree;
  return degree;
}

absl::StatusOr<PlanOutline> StaticPlanner::Decide(const PlanRequest& request,
                                                  const IntegerCostModel& /*cost*/) const {
  const int degree = StaticDegree(request);
  const int replicas = request.ranks / degree;
  PlanOutline outline;
  outline.micro_batches.resize(request.ranks);
  int replica = replicas - 1;
  // Shares differ by a token or two, so room is counted for each member.
  std::vector<int64_t> shares(degree), held(degree);
  bool fits = false;
  for (size_t i = 0; i < request.lengths.size(); ++i) {
    const int64_t sequence = static_cast<int64_t>(i);
    for (int member = 0; member < degree; ++member) {
      shares[member] = 0;
      for (const TokenRange& range : ZigzagRanges(request.lengths[i], degree, member)) {
        shares[member] += range.size();
      }
      fits = fits && held[member] + shares[member] <= request.micro_batch_tokens;
    }
    if (!fits) replica = (replica + 1) % replicas;
    const int first = replica * degree;
    if (!fits) {
      std::fill(held.begin(), held.end(), 0);
      const int64_t ring = degree == 1 ? -1 : static_cast<int64_t>(outline.rings.size());
      for (int rank = first; rank < first + degree; ++rank) {
        outline.micro_batches[rank].push_back({ring, {}});
      }
      if (ring >= 0) outline.rings.push_back({{}, IntervalRing(first, degree)});
    }
    fits = true;
    for (int member = 0; member < degree; ++member) held[member] += shares[member];
    if (degree == 1) {
      outline.micro_batches[first].back().sequences.push_back(sequence);
    } else {
      outline.rings.back().sequences.push_back(sequence);
    }
  }
  return outline;
}

absl::StatusOr<PlanOutline> NaivePlanner::Decide(const PlanRequest& request,
                                                 const IntegerCostModel& /*cost*/) const {
  PlanOutline outline;
  outline.micro_batches.resize(request.ranks);
  int next = 0;
  std::vector<int64_t> pack;
  int64_t packed = 0;
  const auto place_pack = [&] {
    if (pack.empty()) return;
    outline.micro_batches[next].push_back({-1, std::move(pack)});
    next = (next + 1) % request.ranks;
    pack.clear();
    packed = 0;
  };
  for (size_t i = 0; i < request.lengths.size(); ++i) {
    const int64_t length = request.lengths[i];
    if (length <= request.micro_batch_tokens) {
      if (packed + length > request.micro_batch_tokens) place_pack();
      pack.push_back(static_cast<int64_t>(i));
      packed += length;
      continue;
    }
    const int width = static_cast<int>((length - 1) / request.micro_batch_tokens + 1);
    if (next + width > request.ranks) next = 0;
    const int64_t ring = static_cast<int64_t>(outline.rings.size());
    for (int rank = next; rank < next + width; ++rank) {
      outline.micro_batches[rank].push_back({ring, {}});
    }
    outline.rings.push_back({{static_cast<int64_t>(i)}, IntervalRing(next, width)});
    next = (next + width) % request.ranks;
  }
  place_pack();
  return outline;
}

}  // namespace longspan
