#include "parallel/sorted_batch.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <vector>

namespace longspan {

SortedBatch::SortedBatch(const PlanRequest& request)
    : capacity_(request.micro_batch_tokens), sequences_(request.lengths.size()) {
  std::iota(sequences_.begin(), sequences_.end(), 0);
  std::sort(sequences_.begin(), sequences_.end(), [&](int64_t a, int64_t b) {
    const int64_t length_a = request.lengths[a], length_b = request.lengths[b];
    return length_a != length_b ? length_a > length_b : a < b;
  });
  lengths_.reserve(sequences_.size());
  for (const int64_t sequence : sequences_) lengths_.push_back(request.lengths[sequence]);
  first_short_ =
      std::partition_point(lengths_.begin(), lengths_.end(),
                           [&](int64_t length) { return length > request.micro_batch_tokens; }) -
      lengths_.begin();
}

PlanningTime RingWork(const IntegerCostModel& cost, int64_t length, int members) {
  return RingWork(cost, length, members, cost.HeadWidths(members));
}

PlanningTime RingWork(const IntegerCostModel& cost, int64_t length, int members,
                      const std::vector<int>& head_widths) {
  // Shares of wide groups differ by a token or two in thousands: some of them tell enough.
  constexpr int kAll = 8;
  const int step = members <= kAll ? 1 : (members - 1) / (kAll - 1);
  std::vector<MicroBatchLoad> loads;
  for (int member = 0; member < members; member += step) {
    loads.push_back(ShareLoad(length, members, member, cost.window()));
  }
  std::optional<PlanningTime> least;
  for (const int heads : head_widths) {
    PlanningTime work = 0;
    for (MicroBatchLoad& load : loads) {
      load.head_parallel = heads;
      work = std::max(work, cost.MicroBatch(load));
    }
    least = std::min(least.value_or(work), work);
  }
  return *least;
}

}  // namespace longspan
