// Skyline: until when each rank of the line is busy, kept as segments of equal load. A group takes
// an interval of the line, so there are few segments even at thousands of ranks.
#ifndef LONGSPAN_PARALLEL_SKYLINE_H_
#define LONGSPAN_PARALLEL_SKYLINE_H_

#include <cstdint>
#include <map>
#include <queue>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "parallel/integer_cost.h"

namespace longspan {

class Skyline {
 public:
  // How an interval in which nobody waits is chosen.
  enum class Choice {
    kFreeFirst,  // lowest: loads stay level, ends are close together
    kFullest,    // highest that is in time: ranks are filled up one after another, to a limit
  };

  Skyline(int ranks, Choice choice);

  struct Interval {
    int first = 0;
    PlanningTime free_at = 0;  // of its last rank
  };
  // A part of an interval that waits.
  struct Wait {
    int first, ranks;
    PlanningTime from;
  };

  // At the left end of a segment, so that nobody waits; first = -1 if there is none.
  // kFreeFirst: of the segments of at least `width` ranks the one that is free first, the smallest
  // of these, the leftmost of these. `latest` does not count. There always is one while widths do
  // not grow. kFullest: of those free by `latest` one of exactly `width` ranks, the latest of
  // these; else ranks that have nothing yet; else the smallest wider segment, the latest of these.
  Interval WithoutWaiting(int width, PlanningTime latest);
  // Any `width` neighbours: those free first together, with the least waiting of these.
  // O(segments).
  Interval Earliest(int width) const;
  // [first, first + width) is busy until `end`. Adds the ranks that wait for `free_at` to `waits`,
  // if given.
  void Occupy(int first, int width, PlanningTime free_at, PlanningTime end,
              std::vector<Wait>* waits);

  // By rank.
  std::vector<PlanningTime> FreeAt() const;
  int segments() const { return alive_; }

 private:
  struct Segment {
    int first, size;
    PlanningTime free_at;
    int previous, next;  // -1: none
    bool alive;
  };
  // Load, size, first rank, segment: least on top.
  using Entry = std::tuple<PlanningTime, int, int, int>;

  int Add(int first, int size, PlanningTime free_at, int previous, int next);
  void Remove(int segment);

  Interval FreeFirst(int width);
  Interval Fullest(int width, PlanningTime latest) const;

  int ranks_;
  const Choice choice_;
  std::vector<Segment> segments_;  // those that are no more stay as dead entries
  std::vector<int> starts_;        // by rank: the segment that begins there, -1: none
  int head_ = 0, alive_ = 0;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> by_load_;
  std::priority_queue<std::pair<int, int>> too_small_;  // size, segment: largest on top
  // kFullest: load and first rank by size.
  std::map<int, std::set<std::pair<PlanningTime, int>>> by_size_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_SKYLINE_H_
